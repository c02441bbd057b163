import type { LogRecord } from '../log/log.js';
import type { ProcessorDefinition } from './processor.js';

export interface DedupeOptions {
  readonly name: string;
  readonly from: readonly string[];
  readonly to: string;
  /** What two records of one thing have in common; undefined lets the record through. Duplicates must have one key, else they meet in no task. */
  readonly idOf: (record: LogRecord) => string | undefined;
  /** How long an id is remembered after it was first seen, by the wall time of the processor. */
  readonly windowMs: number;
}

/**
 * Passes on the first record of each id, and drops those that follow within the window, over restarts too. Order per key stays. The memory of an
 * id is an entry of the state and a timer, both gone after the window.
 */
export function dedupe({ name, from, to, idOf, windowMs }: DedupeOptions): ProcessorDefinition {
  return {
    name,
    inputs: from,
    onRecord(record, context) {
      const id = idOf(record);
      if (id !== undefined) {
        if (context.state.get(id) !== undefined) return;
        context.state.put(id, Buffer.from(String(context.now)));
        context.timers.set(id, context.now + windowMs);
      }
      const { key, value, headers, timestamp } = record;
      context.send({ topic: to, key, value, headers, timestamp });
    },
    onTimer: ({ id }, context) => context.state.delete(id),
  };
}
