import type { LogRecord, TopicSpec } from '../log/log.js';
import { parkedTopicOf, stateTopicOf, type ProcessorDefinition } from './processor.js';

export interface RepartitionOptions {
  /** Names the processor and its topic. */
  readonly name: string;
  /** Topics of equal partition counts to read. */
  readonly from: readonly string[];
  /** The new key of a record; undefined leaves the record out. Pure: it may run again. */
  readonly by: (record: LogRecord) => Buffer | undefined;
  /** Partitions of the internal topic, and so of whatever joins or aggregates over the new key. */
  readonly partitions: number;
  /** Partitions of `from`: of the processor's own state topic. */
  readonly fromPartitions: number;
  /** How long the internal topic keeps records. A reader that is behind for longer loses some, and is told. Default: for ever. */
  readonly retentionMs?: number;
}

export interface Repartition {
  readonly definition: ProcessorDefinition;
  /** The internal topic: an input of what comes next. */
  readonly topic: string;
  /** The topics it needs, as wanted: for `ensureTopics`. */
  readonly topics: readonly TopicSpec[];
}

/**
 * Brings records under a new key, exactly once: an ordinary processor whose output is an internal topic. Value, headers and timestamp stay as
 * they are. Records of one old key that get one new key keep their order; those of different old keys have none among them.
 */
export function repartition(options: RepartitionOptions): Repartition {
  const { name, from, by, partitions, fromPartitions, retentionMs = -1 } = options;
  const topic = `headwater.${name}.repartition`;
  const definition: ProcessorDefinition = {
    name,
    inputs: from,
    onRecord(record, context) {
      const key = by(record);
      if (key === undefined) return;
      const { value, headers, timestamp } = record;
      context.send({ topic, key, value, headers, timestamp });
    },
  };
  const config = { 'retention.ms': String(retentionMs) };
  return {
    definition,
    topic,
    topics: [
      { topic, partitions, cleanupPolicy: 'delete', config },
      { topic: stateTopicOf(name), partitions: fromPartitions, cleanupPolicy: 'compact' },
      { topic: parkedTopicOf(name), partitions: fromPartitions, cleanupPolicy: 'delete' },
    ],
  };
}
