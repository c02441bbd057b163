import 'reflect-metadata';
import type { MessageClass } from '../model/model.js';
import type { FailurePolicy, ProcessContext } from '../process/processor.js';

export interface ProcessorOptions {
  /** Names its group and its topics: state, parked, control. */
  readonly name: string;
  /** Raise it when an input is left out or renamed: the state refuses older versions from then on. */
  readonly version: number;
  /** Changelogs that every instance keeps whole in memory, for `context.table`. */
  readonly tables?: readonly MessageClass[];
  /** What happens to a record whose method throws something that a repetition may mend. Default: three attempts, then `park`. */
  readonly onFailure?: FailurePolicy;
  /** When the next record of an input is no longer in the log. Default `stop`. */
  readonly onLostInput?: 'stop' | 'restart';
  /** `all`: each instance also keeps the states of the partitions that others own, to take them over at once. Default `none`. */
  readonly standby?: 'none' | 'all';
}

/**
 * What a method of a processor may do besides returning messages. All of it becomes real together with the offset of the record, or not at all; when the
 * method throws, none of it does. Its parts may be taken out of it: `({ state, send }: TaskContext)`.
 */
export interface TaskContext {
  /** Wall time of this batch, milliseconds since 1970. */
  readonly now: number;
  /**
   * Keyed state, as JSON. Reads see what earlier records wrote. A key belongs to the partition in which it is written: use the key of the record, or
   * names below it. `put` throws PROCESS_STATE_INVALID for a bigint or a cycle; what else JSON changes comes back changed, a Date as text, a Map as `{}`.
   */
  readonly state: {
    get<T>(key: string): T | undefined;
    put(key: string, value: unknown): void;
    delete(key: string): void;
  };
  /** `set` has the `@OnTimer()` method called once, not before `atMs`, across crashes; setting the same id again moves it. Throws when there is no such method. */
  readonly timers: ProcessContext['timers'];
  /** Publishes a message, as returning it does. Throws when it breaks its contract, or when its class is in no `forFeature([...])`. */
  readonly send: (message: object) => void;
  /** Takes a key out of a changelog. */
  readonly tombstone: (type: MessageClass, key: string) => void;
  /**
   * A changelog that the processor declared among its `tables`, as far as this instance has read it: no part of the transaction, a record that is
   * handled again after a crash may see a later row.
   */
  readonly table: <T extends object>(type: MessageClass<T>) => { get(key: string): T | undefined };
}

/** What a method of a processor gives: messages to publish, in order. */
export type Sent = void | null | object | readonly (object | null | undefined)[];

const PROCESSOR = Symbol('headwater:processor');
const ON_TIMER = Symbol('headwater:on-timer');

/**
 * A keyed, stateful, exactly-once function from topics to topics. Its `@On` methods are `(change: Change<T>, context: TaskContext) => Sent`, or a promise
 * of it; they may be called again for a record whose transaction was not committed, so effects outside of the context happen at least once.
 * Order: records of one key in log order; due timers before the records of a batch. Inputs have equal partition counts.
 * What throws Rejected or ContractError is parked at once with all that follows on its key, anything else by `onFailure`.
 */
export function Processor(options: ProcessorOptions): ClassDecorator {
  return (target) => Reflect.defineMetadata(PROCESSOR, options, target);
}

/** Handles the timers of the processor: `(timer: DueTimer, context: TaskContext) => Sent`. */
export function OnTimer(): MethodDecorator {
  return (target, method) => {
    Reflect.defineMetadata(ON_TIMER, [...new Set([...timerMethods(target), String(method)])], target);
  };
}

export function processorOf(type: MessageClass): ProcessorOptions | undefined {
  return Reflect.getOwnMetadata(PROCESSOR, type) as ProcessorOptions | undefined;
}

/** The methods with `@OnTimer()`; more than one is a mistake. */
export function timerMethodsOf(type: MessageClass): readonly string[] {
  return timerMethods(type.prototype as object);
}

function timerMethods(prototype: object): readonly string[] {
  return (Reflect.getMetadata(ON_TIMER, prototype) as readonly string[] | undefined) ?? [];
}
