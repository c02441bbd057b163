import { HeadwaterError, type ErrorFacts } from '@headwater/core';

/** What the log in memory refuses: the same codes, facts and meanings as Kafka's log. */
const refusal = (code: string, message: string, facts: ErrorFacts = {}, retryable = false): HeadwaterError =>
  new HeadwaterError(code, message, { facts, retryable });

export const closed = () => refusal('LOG_CLOSED', 'the log is closed. Open a new one.');

export const unreachable = (request: string) =>
  refusal('KAFKA_UNREACHABLE', `${request} was not answered in time. Try again.`, { request }, true);

export const topicMissing = (topic: string) =>
  refusal('LOG_TOPIC_MISSING', `topic ${topic} does not exist. Create it with admin.ensureTopics().`, { topic });

export const partitionMissing = (topic: string, partition?: number) =>
  refusal(
    'LOG_PARTITION_MISSING',
    partition === undefined
      ? `a record for ${topic} has neither a key nor a partition. Give it one of them.`
      : `topic ${topic} has no partition ${partition}. Leave the partition out, or check the count.`,
    { topic, ...(partition !== undefined && { partition }) },
  );

export const outOfRange = (topic: string, partition: number, offset: number, start: number, high: number) =>
  refusal(
    'LOG_OFFSET_OUT_OF_RANGE',
    `${topic}-${partition}: offset ${offset} ${offset < start ? 'was removed from the log' : 'is not yet in the log'}, ` +
      `which holds ${start} to ${high}. Rebuild what is read from it, or seek into the range.`,
    { topic, partition, offset, start, high },
  );

export const tooLarge = (topic: string, partition: number, key: Buffer | null, bytes: number, limit: number) =>
  refusal(
    'RECORD_TOO_LARGE',
    `a record of ${bytes} bytes for ${topic}-${partition} is above the limit of ${limit}. ` +
      'Make the record smaller, or store the large part elsewhere and write a reference.',
    { topic, partition, key: key === null ? null : key.toString(), bytes, limit },
  );

export const keyMissing = (topic: string, partition: number) =>
  refusal(
    'RECORD_INVALID',
    `${topic}-${partition} refuses the record with key null for good: a compacted topic takes no record without a key. ` +
      'Give it a key.',
    { topic, partition, key: null },
  );

export const batchTooLarge = (topic: string, partition: number, records: number, bytes: number, limit: number) =>
  refusal(
    'LOG_BATCH_TOO_LARGE',
    `${topic}-${partition} does not take a batch of ${records} records and ${bytes} bytes. ` +
      `Nothing of the batch was written. Run the same again: batches of ${topic} are cut to ${limit} bytes now.`,
    { topic, partition, records, bytes, limit },
    true,
  );

export const writerFenced = (transactionalId: string) =>
  refusal(
    'LOG_WRITER_FENCED',
    `${transactionalId} was taken by another writer, or its transaction timed out. Call fence().`,
    { transactionalId },
    true,
  );

export const writerNotReady = (transactionalId: string) =>
  refusal('LOG_WRITER_NOT_READY', `${transactionalId} is not fenced. Call fence() first.`, { transactionalId });

export const writerBusy = (transactionalId: string) =>
  refusal('LOG_WRITER_BUSY', `${transactionalId} has a transaction open. Commit or abort it first.`, {
    transactionalId,
  });

export const transactionOver = () =>
  refusal('LOG_TRANSACTION_OVER', 'the transaction has already been committed or aborted. Begin a new one.');

export const transactionAborted = () =>
  refusal('LOG_TRANSACTION_ABORTED', 'the transaction was aborted by its owner. Nothing of it will be seen.');

export const memberFenced = (groupId: string) =>
  refusal(
    'LOG_MEMBER_FENCED',
    `the offsets of group ${groupId} belong to another generation now. Drop the work; the group hands out partitions anew.`,
    { groupId },
    true,
  );

export const instanceFenced = (groupId: string, instanceId: string | undefined) =>
  refusal(
    'LOG_INSTANCE_FENCED',
    `another process joined group ${groupId} as instance ${instanceId}; this one has ended its work. ` +
      'Give every live process an instanceId of its own, then restart this one.',
    { groupId, instanceId },
  );

export const groupRunsAlready = (groupId: string) =>
  refusal('LOG_OPTIONS_INVALID', `the member of group ${groupId} runs already. Make another one with log.group().`, {
    groupId,
  });

export const notGivenBack = (groupId: string, partitions: readonly number[]) =>
  refusal(
    'LOG_MEMBER_LOST',
    `the group ${groupId} goes on without this member: it did not give back partition ${partitions.join(', ')} in time. It joins again when its work has ended.`,
    { groupId, partitions },
    true,
  );

export const generationMissed = (groupId: string) =>
  refusal(
    'LOG_MEMBER_LOST',
    `the group ${groupId} made a generation without this member. It joins anew.`,
    { groupId },
    true,
  );

export const notCopartitioned = (groupId: string, counts: Readonly<Record<string, number>>) =>
  refusal(
    'LOG_NOT_COPARTITIONED',
    `group ${groupId}: partition counts differ: ${Object.entries(counts)
      .map(([topic, count]) => `${topic} has ${count}`)
      .join(', ')}. Make the counts equal, or copy one topic into a new one with the other’s count.`,
    { groupId, counts },
  );

export const topicsDiffer = (
  differences: readonly { topic: string; setting: string; wanted: string; found: string | undefined }[],
) =>
  refusal(
    'LOG_TOPIC_MISMATCH',
    `${differences.length} difference(s): ${differences
      .map((of) => `${of.topic} ${of.setting}: wanted ${of.wanted}, found ${of.found}`)
      .join('; ')}. Alter the topics, or the settings asked for.`,
    { differences },
  );
