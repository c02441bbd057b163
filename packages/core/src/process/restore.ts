import { HeadwaterError } from '../errors/headwater.error.js';
import type { Log, LogReader, PartitionOffset } from '../log/log.js';
import type { Clock } from '../clock/clock.js';
import { stateTopicOf } from './processor.js';
import type { Task } from './task.js';

/** How long a state that lags behind its committed offsets may take to become readable: markers of one transaction land one by one. */
const LAG_LIMIT_MS = 30_000;

/**
 * Fills the tasks from the state topic and returns where each input continues.
 * P3: reads to the last stable offset, and further until the state includes every committed input offset (`o:` entries): the commit marker of
 * the offsets may become visible before the marker of the state. A foreign open transaction does not hold it up.
 */
export async function restore(
  log: Log,
  processor: string,
  tasks: ReadonlyMap<number, Task>,
  committed: readonly PartitionOffset[],
  clock: Clock,
  signal: AbortSignal,
): Promise<readonly PartitionOffset[]> {
  const topic = stateTopicOf(processor);
  const reader = log.reader();
  try {
    const ends = new Map((await log.admin.offsets(topic)).map((offset) => [offset.partition, offset]));
    const position = new Map<number, number>();
    for (const partition of tasks.keys()) {
      const start = ends.get(partition)?.start ?? 0;
      position.set(partition, start);
      reader.seek(topic, partition, start);
    }
    const starts = await inputStarts(log, committed);
    const startedAt = clock.now();
    const unfinished = () =>
      [...tasks].filter(([partition, task]) => {
        const end = ends.get(partition)?.lastStable ?? 0;
        return position.get(partition)! < end || lags(task, committed, starts, partition);
      });
    while (unfinished().length > 0 && !signal.aborted) {
      if (
        clock.now() - startedAt > LAG_LIMIT_MS &&
        unfinished().some(([partition, task]) => lags(task, committed, starts, partition))
      ) {
        throw new HeadwaterError(
          'PROCESS_STATE_BEHIND',
          `the state topic ${topic} does not include the committed offsets of its inputs. Was it deleted or truncated? Reset the group and the state topic together.`,
          { facts: { processor, topic } },
        );
      }
      await applyNext(reader, tasks, position, signal);
    }
    return inputPositions(tasks, committed, starts);
  } finally {
    await reader.close();
  }
}

async function applyNext(
  reader: LogReader,
  tasks: ReadonlyMap<number, Task>,
  position: Map<number, number>,
  signal: AbortSignal,
) {
  for (const batch of await reader.poll({ maxWaitMs: 20, signal })) {
    const task = tasks.get(batch.partition)!;
    for (const record of batch.records) task.state.restore(record);
    position.set(batch.partition, batch.nextOffset);
  }
}

/** A partition the processor never saw starts where its log starts: an offset committed there is not missing from the state. */
function lags(
  task: Task,
  committed: readonly PartitionOffset[],
  starts: ReadonlyMap<string, number>,
  partition: number,
): boolean {
  return committed.some(
    (offset) =>
      offset.partition === partition &&
      offset.next > (task.state.includedOffset(offset.topic) ?? startOf(starts, offset)),
  );
}

/** The state decides where an input continues; what it never saw starts at the beginning of the log. */
function inputPositions(
  tasks: ReadonlyMap<number, Task>,
  committed: readonly PartitionOffset[],
  starts: ReadonlyMap<string, number>,
): PartitionOffset[] {
  return committed.map(({ topic, partition }) => ({
    topic,
    partition,
    next: tasks.get(partition)!.state.includedOffset(topic) ?? startOf(starts, { topic, partition }),
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
