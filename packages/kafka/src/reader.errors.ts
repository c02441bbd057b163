import type { TopicPartition } from '@headwater/core';
import { KafkaError } from './kafka.errors.js';

interface Place extends TopicPartition {
  readonly offset: number;
}

export function corrupt({ topic, partition, offset }: Place): KafkaError {
  return new KafkaError(
    'LOG_CORRUPT',
    `${topic}-${partition} at offset ${offset}: the broker found a corrupt batch. Read from another replica or restore the topic.`,
    { facts: { topic, partition, offset } },
  );
}

/** `wanted`: the id of the topic that was read; `found`: that of the one which has its name now. */
export function topicRecreated(
  { topic, partition, offset }: Place,
  wanted: string | undefined,
  found: string | undefined,
): KafkaError {
  return new KafkaError(
    'LOG_TOPIC_RECREATED',
    `topic ${topic} was deleted and made again (id ${wanted}, now ${found}): offset ${offset} of partition ${partition} is not of this one. ` +
      'Rebuild what is read from it, then seek to its start.',
    { facts: { topic, partition, offset, wanted, found } },
  );
}

export function topicMissing(topic: string): KafkaError {
  return new KafkaError(
    'LOG_TOPIC_MISSING',
    `topic ${topic} was read and exists no more. Restore it, or drop it and rebuild what is read from it.`,
    { facts: { topic } },
  );
}

export function outOfRange({ topic, partition, offset }: Place, start: number, high: number): KafkaError {
  const side = offset < start ? 'was removed from the log' : 'is not yet in the log';
  return new KafkaError(
    'LOG_OFFSET_OUT_OF_RANGE',
    `${topic}-${partition}: offset ${offset} ${side}, which holds ${start} to ${high}. Rebuild what is read from it, or seek into the range.`,
    { facts: { topic, partition, offset, start, high } },
  );
}
