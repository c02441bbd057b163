import 'reflect-metadata';

/** What a class means on the log. `changelog`: state per key, compacted. `event`: facts for ever. `command`: a request to one participant. */
export type ModelKind = 'changelog' | 'event' | 'command';

export interface Model {
  readonly kind: ModelKind;
  readonly topic: string;
  /** CloudEvents type; the class name by default. */
  readonly type: string;
  /** The captured table of a changelog, `schema.table`. */
  readonly table?: string;
}

export type MessageClass<T extends object = object> = abstract new (...args: never[]) => T;

const MODEL = Symbol('headwater:model');
const KEYS = Symbol('headwater:keys');
const INT64 = Symbol('headwater:int64');

export interface ChangelogOptions {
  readonly topic: string;
  /** The table capture reads it from; without a schema, `public`. */
  readonly table?: string;
}

/** State per key in a compacted topic. Property `postedCents` is column `posted_cents` of the captured row. */
export function Changelog(options: ChangelogOptions): ClassDecorator {
  return (target) =>
    define(target, {
      kind: 'changelog',
      topic: options.topic,
      type: target.name,
      ...(options.table === undefined
        ? {}
        : { table: options.table.includes('.') ? options.table : `public.${options.table}` }),
    });
}

export interface MessageOptions {
  readonly topic: string;
  /** CloudEvents type. Default: the class name. Set it before you rename the class. */
  readonly type?: string;
}

/** An immutable fact in an append-only topic. */
export function Event(options: MessageOptions): ClassDecorator {
  return (target) => define(target, { kind: 'event', topic: options.topic, type: options.type ?? target.name });
}

/** A message asking one participant to do one thing; it gets a reply. */
export function Command(options: MessageOptions): ClassDecorator {
  return (target) => define(target, { kind: 'command', topic: options.topic, type: options.type ?? target.name });
}

/** The property (or properties, in order) that make the record key. */
export function Key(): PropertyDecorator {
  return (target, property) => append(KEYS, target, property);
}

/** An int8 as bigint: a text in JSON, exact over the whole range. */
export function Int64(): PropertyDecorator {
  return (target, property) => append(INT64, target, property);
}

/** The model of a class, or undefined when it carries no decorator of ours. */
export function modelOf(target: object): Model | undefined {
  return Reflect.getOwnMetadata(MODEL, target) as Model | undefined;
}

export function keyProperties(target: MessageClass): readonly string[] {
  return (Reflect.getMetadata(KEYS, target.prototype as object) as readonly string[] | undefined) ?? [];
}

export function int64Properties(target: MessageClass): readonly string[] {
  return (Reflect.getMetadata(INT64, target.prototype as object) as readonly string[] | undefined) ?? [];
}

function define(target: object, model: Model): void {
  Reflect.defineMetadata(MODEL, model, target);
}

function append(symbol: symbol, target: object, property: string | symbol): void {
  const known = (Reflect.getMetadata(symbol, target) as readonly string[] | undefined) ?? [];
  Reflect.defineMetadata(symbol, [...known, String(property)], target);
}
