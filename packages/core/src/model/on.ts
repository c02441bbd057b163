import 'reflect-metadata';
import { ContractError } from '../errors/headwater.error.js';
import { headerText } from '../log/headers.js';
import type { LogRecord } from '../log/log.js';
import { decodeMessage } from './codec.js';
import { modelOf, type MessageClass } from './model.js';

/** One change of a changelog, or one event. */
export interface Change<T extends object> {
  readonly key: string;
  /** Absent for a tombstone. */
  readonly after?: T;
  /** Milliseconds since 1970, of the record. */
  readonly timestamp: number;
}

/** A handler as found on a class. */
export interface Handler {
  readonly type: MessageClass;
  readonly method: string;
}

const ON = Symbol('headwater:on');

/**
 * Handles the records of a changelog, event or command class, in log order per key. What the method gets besides the change, and what it may return, is
 * told by the decorator of its class: `@Projection` or `@Processor`.
 */
export function On(type: MessageClass): MethodDecorator {
  return (target, method) => {
    const own = (Reflect.getOwnMetadata(ON, target) as readonly Handler[] | undefined) ?? [];
    Reflect.defineMetadata(ON, [...own, { type, method: String(method) }], target);
  };
}

/** Its own and those of its base classes; a method that is decorated anew replaces the one it overrides. */
export function handlersOf(type: MessageClass): readonly Handler[] {
  let handlers: readonly Handler[] = [];
  for (let at = type.prototype as object | null; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const own = (Reflect.getOwnMetadata(ON, at) as readonly Handler[] | undefined) ?? [];
    const overridden = new Set(handlers.map(({ method }) => method));
    handlers = [...own.filter(({ method }) => !overridden.has(method)), ...handlers];
  }
  return handlers;
}

/** The topics of what a class handles. */
export function topicsOf(type: MessageClass): string[] {
  return [...new Set(handlersOf(type).flatMap((on) => modelOf(on.type)?.topic ?? []))];
}

/** Whose record this is: every one of a changelog topic; of an event or command topic, those of the handler's type. */
export function handlerFor(handlers: readonly Handler[], record: LogRecord): Handler | undefined {
  return handlers.find(({ type }) => {
    const model = modelOf(type)!;
    if (model.topic !== record.topic) return false;
    return model.kind === 'changelog' || headerText(record.headers, 'ce_type') === model.type;
  });
}

/** Throws ContractError for a record without a key, or whose value is not a valid `T`. */
export function changeOf<T extends object>(type: MessageClass<T>, record: LogRecord): Change<T> {
  const { key, value, timestamp } = record;
  if (key === null) throw new ContractError(type.name, ['the record has no key']);
  const after = value === null ? {} : { after: decodeMessage(type, value) };
  return { key: key.toString('utf8'), timestamp, ...after };
}
