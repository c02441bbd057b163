import { HeadwaterError } from '../errors/headwater.error.js';
import type { Log, PartitionOffset } from '../log/log.js';
import type { Clock } from '../clock/clock.js';
import { CopyReader } from './copy-reader.js';
import { stateTopicOf } from './processor.js';
import type { TaskState } from './task-state.js';

/** How long a state that lags behind its committed offsets may take to become readable: markers of one transaction land one by one. */
const LAG_LIMIT_MS = 30_000;
const PROGRESS_MS = 2_000;
const POLL_MS = 20;

export interface RestoreProgress {
  readonly done: number;
  readonly total: number;
}

export interface RestoreContext {
  readonly log: Log;
  readonly processor: string;
  readonly states: ReadonlyMap<number, TaskState>;
  readonly committed: readonly PartitionOffset[];
  readonly clock: Clock;
  /** How long the state topic keeps tombstones. */
  readonly tombstonesMs: number;
  readonly signal: AbortSignal;
  /** Called now and then while much is left, in offsets of the state topic. */
  readonly onProgress?: (progress: RestoreProgress) => void;
}

/**
 * Brings the states up to the state topic and returns where each input continues.
 * P3: reads from each state's stamp to the last stable offset, and further until the state includes every committed input offset (`o:`
 * entries): the commit marker of the offsets may become visible before the marker of the state. The offset of the state topic itself counts the
 * batches of timers, which move no input. A foreign open transaction does not hold it up.
 */
export async function restore(context: RestoreContext): Promise<readonly PartitionOffset[]> {
  const { log, processor, states, committed, clock, signal, tombstonesMs } = context;
  const topic = stateTopicOf(processor);
  const copies = new CopyReader({ log, topic, copies: states, clock, tombstonesMs });
  const interrupt = () => copies.interrupt();
  signal.addEventListener('abort', interrupt);
  try {
    await copies.begin();
    const starts = await inputStarts(
      log,
      committed.filter((offset) => offset.topic !== topic),
    );
    const startedAt = clock.elapsed();
    let toldAt = startedAt;
    const isBehind = () => [...states].some(([partition, state]) => lags(state, committed, partition));
    while (!signal.aborted && (!copies.hasReachedAll || isBehind())) {
      const now = clock.elapsed();
      if (copies.hasReachedAll && now - startedAt > LAG_LIMIT_MS) throw stateBehind(processor, topic);
      if (now - toldAt >= PROGRESS_MS) {
        toldAt = now;
        context.onProgress?.(copies.progress);
      }
      await copies.advance(POLL_MS);
    }
    return inputPositions(states, committed, starts);
  } finally {
    signal.removeEventListener('abort', interrupt);
    await copies.close();
  }
}

/** Whatever was committed of a partition is in its state: offset and state are one transaction. */
function lags(state: TaskState, committed: readonly PartitionOffset[], partition: number): boolean {
  return committed.some(
    (offset) => offset.partition === partition && offset.next > (state.includedOffset(offset.topic) ?? 0),
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

function stateBehind(processor: string, topic: string): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_STATE_BEHIND',
    `the state topic ${topic} does not include the committed offsets of its inputs. Was it deleted, made again or truncated? Bring it back; or, to begin anew, stop all instances, make it again and delete the group headwater.${processor}.`,
    { facts: { processor, topic } },
  );
}
