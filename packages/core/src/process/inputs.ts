import type { Clock } from '../clock/clock.js';
import { HeadwaterError } from '../errors/headwater.error.js';
import type { Logger } from '../lifecycle/running.js';
import type { Log, PartitionOffset } from '../log/log.js';
import { controlTopicOf, parkedTopicOf, stateTopicOf, type ProcessorDefinition } from './processor.js';
import {
  expectUnchanged,
  expectEqualCounts,
  inputsOf,
  neededTopics,
  partitionsChanged,
  topicMissing,
  type FoundTopics,
  type Topology,
} from './topology.js';

/** A new leader may not have everything yet for a moment. */
const LATE_LEADER_MS = 1_000;
const WATCH_MS = 1_000;

/**
 * Refuses topics that do not fit each other or the state, before the group is joined; then makes what is missing of its own: the control topic, so that
 * a processor from before there was one goes on, and the parked topic, without which nothing could be set aside. `new`: it has no state, so it never ran.
 */
export async function prepareTopics(log: Log, definition: ProcessorDefinition): Promise<'new' | 'known'> {
  const { name, inputs, outputs = [] } = definition;
  const own = [controlTopicOf(name), parkedTopicOf(name)];
  const state = stateTopicOf(name);
  const counts = await log.admin.partitionCounts([...inputs, ...outputs, ...own, state]);
  const missing = [...inputs, ...outputs, state].filter((topic) => !counts.has(topic));
  if (missing.length > 0) throw topicMissing(name, missing);
  // Once it has run, the state tells which of them was changed.
  const hasRun = (await log.admin.offsets(state)).some(({ high }) => high > 0);
  if (!hasRun) expectEqualCounts(name, inputs, counts);
  const partitions = counts.get(state)!;
  for (const topic of inputs)
    if (counts.get(topic) !== partitions) throw partitionsChanged(name, topic, partitions, counts.get(topic)!);
  const policy = await log.admin.cleanupPolicy(state);
  if (policy !== undefined && policy !== 'compact') throw stateNotCompacted(name, state, policy);
  const parked = counts.get(parkedTopicOf(name)) ?? partitions;
  if (parked < partitions) throw parkedTooFew(name, parked, partitions);
  const config = { 'retention.ms': '-1' };
  const absent = own.filter((topic) => !counts.has(topic));
  if (absent.length > 0)
    await log.admin.ensureTopics(absent.map((topic) => ({ topic, partitions, cleanupPolicy: 'delete', config })));
  return hasRun ? 'known' : 'new';
}

export async function findTopics(log: Log, definition: ProcessorDefinition): Promise<FoundTopics> {
  const topics = neededTopics(definition);
  return { counts: await log.admin.partitionCounts(topics), ids: await log.admin.topicIds(topics) };
}

/** Resolves when the signal aborts; rejects as soon as the topics are no longer what the work began with. */
export async function watchTopics(
  log: Log,
  definition: ProcessorDefinition,
  began: Topology,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    await clock.wait(WATCH_MS, signal);
    if (signal.aborted) return;
    const found = await findTopics(log, definition).catch((error: unknown) => {
      // Brokers that do not answer say nothing about topics; what needs them fails by itself.
      if (error instanceof HeadwaterError && error.retryable) return undefined;
      throw error;
    });
    if (found !== undefined && !signal.aborted) expectUnchanged(began, definition, found);
  }
}

/**
 * Where the inputs go on. A topic that was made again begins at its start. An offset that is no longer in the log is the definition's
 * to decide: an error, or the earliest record left; never the end.
 */
export async function availablePositions(context: {
  readonly log: Log;
  readonly definition: ProcessorDefinition;
  readonly positions: readonly PartitionOffset[];
  readonly isRemade: (position: PartitionOffset) => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
}): Promise<PartitionOffset[]> {
  const { log, definition, positions, isRemade, clock, logger } = context;
  const ranges = () => rangesOf(log, inputsOf(definition));
  let found = await ranges();
  const isAhead = (position: PartitionOffset) =>
    !isRemade(position) && position.next > (found.get(nameOf(position))?.high ?? Infinity);
  if (positions.some(isAhead)) {
    await clock.wait(LATE_LEADER_MS);
    found = await ranges();
  }
  return positions.map((position) => {
    const range = found.get(nameOf(position));
    // Of the state topic: a count, not a place to read from.
    if (range === undefined) return position;
    const restart = { ...position, next: range.start };
    if (isRemade(position)) {
      logger.warn(
        `processor ${definition.name}: ${nameOf(position)} was made again; it is read from its start, offset ${range.start}.`,
      );
      return restart;
    }
    if (position.next >= range.start && position.next <= range.high) return position;
    if ((definition.onLostInput ?? 'stop') === 'stop') throw inputLost(definition.name, position, range);
    logger.error(
      `processor ${definition.name}: ${nameOf(position)} lost its records from offset ${position.next} on; it is read from the earliest left, offset ${range.start} (onLostInput: 'restart').`,
    );
    return restart;
  });
}

interface Range {
  readonly start: number;
  readonly high: number;
}

async function rangesOf(log: Log, topics: readonly string[]): Promise<Map<string, Range>> {
  const offsets = await Promise.all(topics.map((topic) => log.admin.offsets(topic)));
  return new Map(offsets.flat().map((range) => [nameOf(range), range]));
}

const nameOf = ({ topic, partition }: { readonly topic: string; readonly partition: number }): string =>
  `${topic}-${partition}`;

function stateNotCompacted(processor: string, topic: string, found: string): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_STATE_NOT_COMPACTED',
    `the state topic ${topic} of ${processor} has cleanup.policy=${found}: the broker would remove state that is needed. Set it to compact, then start again.`,
    { facts: { processor, topic, found } },
  );
}

function parkedTooFew(processor: string, count: number, wanted: number): HeadwaterError {
  const topic = parkedTopicOf(processor);
  return new HeadwaterError(
    'PROCESS_PARTITIONS_CHANGED',
    `${topic} has ${count} partitions, the state of ${processor} has ${wanted}: what the last of them park has no place. Give it ${wanted}, then start again.`,
    { facts: { processor, topic, count, wanted } },
  );
}

function inputLost(
  processor: string,
  { topic, partition, next }: PartitionOffset,
  { start, high }: Range,
): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_INPUT_LOST',
    `${topic}-${partition}: offset ${next} is wanted, the log holds ${start} to ${high}. What lay between was removed before ${processor} handled it. ` +
      `Restore the topic; or set onLostInput: 'restart' to go on with the earliest record left.`,
    { facts: { processor, topic, partition, wanted: next, start, high } },
  );
}
