import type { Metric } from '../lifecycle/metric.js';
import type { Task } from './task.js';

export interface ProcessFigures {
  readonly up: boolean;
  /** Since this process started. */
  readonly counts: Readonly<Record<'handled' | 'parked' | 'transactions' | 'restarts', number>>;
  readonly tasks: ReadonlyMap<number, Pick<Task, 'lag' | 'handled' | 'state'>>;
  /** Partitions of which nothing comes for now. */
  readonly unreadable: ReadonlyMap<number, unknown>;
  /** Offsets of the state topic, while a state is being restored. */
  readonly restoring: { readonly done: number; readonly total: number } | undefined;
}

/** A hot or slow partition is the one whose lag or count grows: both carry the partition. */
export function processMetrics(processor: string, figures: ProcessFigures): Metric[] {
  const { up, counts, tasks, unreadable, restoring } = figures;
  const one = (name: string, type: Metric['type'], help: string, value: number, partition?: number): Metric => {
    const labels = { processor, ...(partition === undefined ? {} : { partition: String(partition) }) };
    return { name: `headwater_processor_${name}`, type, help, labels, value };
  };
  return [
    one('up', 'gauge', '1 while the processor works', up ? 1 : 0),
    one('transactions_total', 'counter', 'Transactions committed', counts.transactions),
    one('committed_total', 'counter', 'Records and timers in committed transactions', counts.handled),
    one('parked_total', 'counter', 'Records and timers set aside', counts.parked),
    one('restarts_total', 'counter', 'Starts from the committed state after a failure', counts.restarts),
    one('restore_offsets_left', 'gauge', 'Offsets of the state topic still to be read', leftOf(restoring)),
    ...[...tasks].flatMap(([partition, task]) => [
      one('lag_offsets', 'gauge', 'Offsets between handled and stable', task.lag, partition),
      one('handled_total', 'counter', 'Records and timers handled', task.handled, partition),
      one('unreadable', 'gauge', '1 while an input cannot be read', unreadable.has(partition) ? 1 : 0, partition),
      one(
        'parked_sequences',
        'gauge',
        'Keys, timers and records that wait for an operator',
        task.state.parkedSequences,
        partition,
      ),
    ]),
  ];
}

const leftOf = (restoring: ProcessFigures['restoring']): number =>
  restoring === undefined ? 0 : restoring.total - restoring.done;
