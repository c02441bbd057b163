import 'reflect-metadata';
import type { MessageClass } from '@headwater/core';

export interface ProjectionOptions {
  /** Names the table and the consumer, together with the version. */
  readonly name: string;
  /** Raise it when the logic or the columns change: the new version fills a table of its own from the beginning of the topics. */
  readonly version: number;
  /** Column name → Postgres type, as in CREATE TABLE. */
  readonly columns: Readonly<Record<string, string>>;
  /** The columns that identify a row. Default: the first column. */
  readonly key?: readonly string[];
  /** Indexes as lists of columns. */
  readonly indexes?: readonly (readonly string[])[];
}

/** The row a change makes. For a tombstone only its key columns count: that row is deleted. */
export type Row = Readonly<Record<string, unknown>>;
export const row = (columns: Row): Row => columns;

const PROJECTION = Symbol('headwater:projection');

/**
 * A read model: changes and events → rows of one table that people query. Its `@On` methods are pure: `(change: Change<T>) => Row | undefined`.
 * Exactly once, in log order per key; the row of a change replaces the whole row of its key; a tombstone deletes it.
 */
export function Projection(options: ProjectionOptions): ClassDecorator {
  return (target) => Reflect.defineMetadata(PROJECTION, options, target);
}

export function projectionOf(type: MessageClass): ProjectionOptions | undefined {
  return Reflect.getOwnMetadata(PROJECTION, type) as ProjectionOptions | undefined;
}

export const keyColumns = (options: ProjectionOptions): readonly string[] =>
  options.key ?? Object.keys(options.columns).slice(0, 1);
export const consumerOf = (options: ProjectionOptions): string => `projection.${options.name}.v${options.version}`;
export const tableOf = (options: ProjectionOptions): string => `headwater.${options.name}_v${options.version}`;
