import {
  ContractError,
  type Clock,
  type OutRecord,
  type ProcessContext,
  type ProcessorDefinition,
} from '@headwater/core';
import { originOf } from './expectation.js';
import { deedOf } from './workload.js';

export const PROCESSOR = 'simulated';
export const OUTPUT = 'output';
export const MAX_OUTPUT_BYTES = 1_000;

/** Who hears what happens in a simulation. */
export interface Witness {
  saw(what: string): void;
  wrong(what: string): void;
  note(what: string): void;
  /** Whether a handler that may stall on this record does. */
  stalls(record: string): boolean;
}

/** The processor under simulation, in one instance. */
export function simulatedProcessor(topics: readonly string[], clock: Clock, witness: Witness): ProcessorDefinition {
  const failures = new Map<string, number>();
  const send = (context: ProcessContext, key: string, text: string) => context.send(output(key, text));
  return {
    name: PROCESSOR,
    inputs: topics,
    async onRecord(record, context) {
      const key = record.key!.toString();
      const did = deedOf(record);
      const add = (n: number) => {
        const sum = Number(context.state.get(key)?.toString() ?? '0') + n;
        context.state.put(key, Buffer.from(String(sum)));
        send(context, key, `${originOf(record)} ${sum}`);
      };
      switch (did.deed) {
        case 'add':
          return add(did.n);
        case 'forget':
          return context.state.delete(key);
        case 'timer':
          return context.timers.set(did.id, did.atMs);
        case 'cancel':
          return context.timers.cancel(did.id);
        case 'slow':
          if (did.ms > 15_000 && !witness.stalls(originOf(record))) return add(did.n);
          witness.saw(did.ms > 15_000 ? 'handler outlasts the rebalance time-out' : 'slow handler');
          await clock.wait(did.ms);
          return add(did.n);
        case 'flaky': {
          // What a failed attempt did must be gone.
          add(did.n);
          const failed = (failures.get(originOf(record)) ?? 0) + 1;
          failures.set(originOf(record), failed);
          if (failed <= 2) throw new Error('not yet');
          witness.saw('handler succeeded at its third attempt');
          return;
        }
        case 'poison':
          add(1_000);
          witness.saw('key parked');
          throw new ContractError('record', ['it is poison']);
        case 'big':
          add(1_000);
          return send(context, key, 'x'.repeat(2 * MAX_OUTPUT_BYTES));
        case 'broken':
          add(1_000);
          throw new Error('broken');
      }
    },
    onTimer({ id, atMs }, context) {
      if (clock.now() < atMs) witness.wrong(`${id} fired before its time`);
      witness.saw('timer fired');
      context.state.put(`fired-${id}`, Buffer.from(String(atMs)));
      send(context, id, String(atMs));
    },
  };
}

function output(key: string, text: string): OutRecord {
  return { topic: OUTPUT, key: Buffer.from(key), value: Buffer.from(text) };
}
