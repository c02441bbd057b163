import 'reflect-metadata';
import { modelOf, type MessageClass } from '@headwater/core';

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

/** One change of a changelog, or one event. */
export interface Change<T extends object> {
  readonly key: string;
  /** Absent for a tombstone. */
  readonly after?: T;
  /** Milliseconds since 1970, of the record. */
  readonly timestamp: number;
}

/** The row a change makes. For a tombstone only its key columns count: that row is deleted. */
export type Row = Readonly<Record<string, unknown>>;
export const row = (columns: Row): Row => columns;

/** A handler as found on a class. */
export interface On {
  readonly type: MessageClass;
  readonly method: string;
}

const PROJECTION = Symbol('headwater:projection');
const ON = Symbol('headwater:on');

/**
 * A read model: changes and events → rows of one table that people query.
 * Exactly once, in log order per key; the row of a change replaces the whole row of its key; a tombstone deletes it.
 */
export function Projection(options: ProjectionOptions): ClassDecorator {
  return (target) => Reflect.defineMetadata(PROJECTION, options, target);
}

/** Handles the records of a changelog or event class. The method is pure: `(change: Change<T>) => Row | undefined`. */
export function On(type: MessageClass): MethodDecorator {
  return (target, method) => {
    const known = (Reflect.getMetadata(ON, target) as readonly On[] | undefined) ?? [];
    Reflect.defineMetadata(ON, [...known, { type, method: String(method) }], target);
  };
}

export function projectionOf(type: MessageClass): ProjectionOptions | undefined {
  return Reflect.getOwnMetadata(PROJECTION, type) as ProjectionOptions | undefined;
}

export function handlersOf(type: MessageClass): readonly On[] {
  return (Reflect.getMetadata(ON, type.prototype as object) as readonly On[] | undefined) ?? [];
}

export function topicsOf(type: MessageClass): string[] {
  return [...new Set(handlersOf(type).flatMap((on) => modelOf(on.type)?.topic ?? []))];
}

export const keyColumns = (options: ProjectionOptions): readonly string[] =>
  options.key ?? Object.keys(options.columns).slice(0, 1);
export const consumerOf = (options: ProjectionOptions): string => `projection.${options.name}.v${options.version}`;
export const tableOf = (options: ProjectionOptions): string => `headwater.${options.name}_v${options.version}`;
