import { HeadwaterError } from '../errors/headwater.error.js';
import type { FetchedBatch, Log, PartitionOffset } from '../log/log.js';
import type { Clock } from '../clock/clock.js';
import { stateTopicOf } from './processor.js';
import type { TaskState } from './task-state.js';

/** How long a state that lags behind its committed offsets may take to become readable: markers of one transaction land one by one. */
const LAG_LIMIT_MS = 30_000;
const PROGRESS_MS = 2_000;

export interface RestoreContext {
  readonly log: Log;
  readonly processor: string;
  readonly states: ReadonlyMap<number, TaskState>;
  readonly committed: readonly PartitionOffset[];
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Called now and then while much is left, in offsets of the state topic. */
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
}

/**
 * Brings the states up to the state topic and returns where each input continues.
 * P3: reads from each state's stamp to the last stable offset, and further until the state includes every committed input offset (`o:`
 * entries): the commit marker of the offsets may become visible before the marker of the state. A foreign open transaction does not hold it up.
 */
export async function restore(context: RestoreContext): Promise<readonly PartitionOffset[]> {
  const { log, processor, states, committed, clock, signal } = context;
  const topic = stateTopicOf(processor);
  const reader = log.reader();
  try {
    const ends = new Map((await log.admin.offsets(topic)).map((offset) => [offset.partition, offset]));
    const from = new Map<number, number>();
    for (const [partition, state] of states) {
      const end = ends.get(partition);
      // A copy that is ahead of the log, or that ends before the log begins, is not of this log: it starts anew.
      if (state.stamp > (end?.high ?? 0) || state.stamp < (end?.start ?? 0)) await state.clear();
      from.set(partition, Math.max(state.stamp, end?.start ?? 0));
    }
    const position = new Map(from);
    for (const [partition, offset] of position) reader.seek(topic, partition, offset);
    const starts = await inputStarts(log, committed);
    const startedAt = clock.elapsed();
    let toldAt = startedAt;
    const isFinished = (partition: number, state: TaskState) =>
      position.get(partition)! >= (ends.get(partition)?.lastStable ?? 0) && !lags(state, committed, starts, partition);
    while (!signal.aborted && [...states].some(([partition, state]) => !isFinished(partition, state))) {
      const now = clock.elapsed();
      const reached = [...states.keys()].every(
        (partition) => position.get(partition)! >= ends.get(partition)!.lastStable,
      );
      if (reached && now - startedAt > LAG_LIMIT_MS) throw stateBehind(processor, topic);
      if (now - toldAt >= PROGRESS_MS) {
        toldAt = now;
        context.onProgress?.(progressOf(from, position, ends));
      }
      for (const batch of await reader.poll({ maxWaitMs: 20, signal })) await take(states, position, batch);
    }
    return inputPositions(states, committed, starts);
  } finally {
    await reader.close();
  }
}

async function take(
  states: ReadonlyMap<number, TaskState>,
  position: Map<number, number>,
  { partition, records, nextOffset }: FetchedBatch,
): Promise<void> {
  await states.get(partition)!.restore(records, nextOffset);
  position.set(partition, nextOffset);
}

/** A partition the processor never saw starts where its log starts: an offset committed there is not missing from the state. */
function lags(
  state: TaskState,
  committed: readonly PartitionOffset[],
  starts: ReadonlyMap<string, number>,
  partition: number,
): boolean {
  return committed.some(
    (offset) =>
      offset.partition === partition && offset.next > (state.includedOffset(offset.topic) ?? startOf(starts, offset)),
  );
}

/** The state decides where an input continues; what it never saw starts at the beginning of the log. */
function inputPositions(
  states: ReadonlyMap<number, TaskState>,
  committed: readonly PartitionOffset[],
  starts: ReadonlyMap<string, number>,
): PartitionOffset[] {
  return committed.map(({ topic, partition }) => ({
    topic,
    partition,
    next: states.get(partition)!.includedOffset(topic) ?? startOf(starts, { topic, partition }),
  }));
}

async function inputStarts(log: Log, committed: readonly PartitionOffset[]): Promise<Map<string, number>> {
  const starts = new Map<string, number>();
  for (const topic of new Set(committed.map((offset) => offset.topic))) {
    for (const offset of await log.admin.offsets(topic)) starts.set(`${topic}/${offset.partition}`, offset.start);
  }
  return starts;
}

const startOf = (
  starts: ReadonlyMap<string, number>,
  { topic, partition }: { topic: string; partition: number },
): number => starts.get(`${topic}/${partition}`) ?? 0;

function progressOf(
  from: ReadonlyMap<number, number>,
  position: ReadonlyMap<number, number>,
  ends: ReadonlyMap<number, { readonly lastStable: number }>,
): { done: number; total: number } {
  let done = 0;
  let total = 0;
  for (const [partition, start] of from) {
    done += position.get(partition)! - start;
    total += Math.max(0, (ends.get(partition)?.lastStable ?? 0) - start);
  }
  return { done, total };
}

function stateBehind(processor: string, topic: string): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_STATE_BEHIND',
    `the state topic ${topic} does not include the committed offsets of its inputs. Was it deleted or truncated? Reset the group and the state topic together.`,
    { facts: { processor, topic } },
  );
}
