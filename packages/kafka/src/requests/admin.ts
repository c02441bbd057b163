import type { OpenTransaction, TopicPartition } from '@headwater/core';
import { flexible, readError, readTopics, writeTopics, type Answer, type Call } from './call.js';

const TOPIC_RESOURCE = 2;
const SET = 0;

/** Sets these and leaves every other setting of the topics as it is. */
export function incrementalAlterConfigs(
  changes: readonly { readonly topic: string; readonly settings: Readonly<Record<string, string>> }[],
): Call<(Answer & { topic: string; message: string })[]> {
  return flexible(
    44,
    'IncrementalAlterConfigs',
    1,
    (body) => {
      body.compactArray(changes, ({ topic, settings }) => {
        body.int8(TOPIC_RESOURCE).compactString(topic);
        body.compactArray(Object.entries(settings), ([name, value]) =>
          body.compactString(name).int8(SET).compactString(value).tags(),
        );
        body.tags();
      });
      body.bool(false).tags(); // not only validate
    },
    (answer) => {
      answer.int32();
      return answer.compactArray(() => {
        const error = answer.int16();
        const message = answer.compactString() ?? '';
        answer.int8();
        const topic = answer.compactString() ?? '';
        answer.tags();
        return { error, message, topic };
      });
    },
  );
}

export interface TopicSettings extends Answer {
  readonly topic: string;
  /** Those asked for; one that the broker does not know is left out. */
  readonly settings: ReadonlyMap<string, string>;
}

/** Settings of topics, as the broker asked knows them. */
export function describeTopics(
  asked: readonly { readonly topic: string; readonly names: readonly string[] }[],
): Call<readonly TopicSettings[]> {
  return flexible(
    32,
    'DescribeConfigs',
    4,
    (body) => {
      body.compactArray(asked, ({ topic, names }) => {
        body.int8(TOPIC_RESOURCE).compactString(topic);
        body.compactArray(names, (setting) => body.compactString(setting)).tags();
      });
      body.bool(false).bool(false).tags(); // no synonyms, no documentation
    },
    (answer) => {
      answer.int32();
      return answer.compactArray(() => {
        const error = answer.int16();
        answer.compactString();
        answer.int8();
        const topic = answer.compactString() ?? '';
        const settings = new Map<string, string>();
        answer.compactArray(() => {
          const name = answer.compactString() ?? '';
          const value = answer.compactString();
          if (value !== null) settings.set(name, value);
          answer.at += 3; // read only, source, sensitive
          answer.compactArray(() => {
            answer.compactString();
            answer.compactString();
            answer.int8();
            answer.tags();
          });
          answer.int8();
          answer.compactString();
          answer.tags();
        });
        answer.tags();
        return { topic, error, settings };
      });
    },
  );
}

export type DescribedProducer = Omit<OpenTransaction, 'transactionalId' | 'startedAtMs'> & {
  /** Of its last record; milliseconds since 1970. */
  readonly lastTimestampMs: number;
};

/** The producers that have a transaction open on these partitions, as their leader knows. */
export function describeProducers(
  partitions: readonly TopicPartition[],
): Call<(TopicPartition & Answer & { open: DescribedProducer[] })[]> {
  return flexible(
    61,
    'DescribeProducers',
    0,
    (body) => {
      writeTopics(body, partitions, ({ partition }) => body.int32(partition)).tags();
    },
    (answer) => {
      answer.int32();
      return readTopics(answer, (topic) => {
        const partition = answer.int32();
        const error = answer.int16();
        answer.compactString();
        const producers = answer.compactArray(() => {
          const producerId = answer.bigint64();
          const epoch = answer.int32();
          answer.int32(); // last sequence
          const lastTimestampMs = answer.int64();
          const coordinatorEpoch = answer.int32();
          const firstOffset = answer.int64();
          answer.tags();
          return { topic, partition, producerId, epoch, lastTimestampMs, coordinatorEpoch, firstOffset };
        });
        answer.tags();
        return { topic, partition, error, open: producers.filter(({ firstOffset }) => firstOffset >= 0) };
      });
    },
  );
}

/** The transactional ids of these producers among those that one broker coordinates. */
export function listTransactions(
  producerIds: readonly bigint[],
): Call<Answer & { transactions: { transactionalId: string; producerId: bigint }[] }> {
  return flexible(
    66,
    'ListTransactions',
    0,
    (body) => {
      body.compactArray([], () => undefined); // in any state
      body.compactArray(producerIds, (id) => body.int64(id)).tags();
    },
    (answer) => {
      const { error } = readError(answer);
      answer.compactArray(() => answer.compactString());
      const transactions = answer.compactArray(() => {
        const transaction = { transactionalId: answer.compactString() ?? '', producerId: answer.bigint64() };
        answer.compactString();
        answer.tags();
        return transaction;
      });
      return { error, transactions };
    },
  );
}

export interface DescribedTransaction extends Answer {
  /** As the coordinator calls it: `Ongoing`, `PrepareCommit`, `CompleteAbort`, … */
  readonly state: string;
  readonly timeoutMs: number;
  readonly startedAtMs: number;
  readonly producerId: bigint;
  readonly epoch: number;
}

/** One transactional id, as its coordinator knows it. */
export function describeTransaction(transactionalId: string): Call<DescribedTransaction> {
  return flexible(
    65,
    'DescribeTransactions',
    0,
    (body) => body.compactArray([transactionalId], (id) => body.compactString(id)).tags(),
    (answer) => {
      answer.int32();
      const [described] = answer.compactArray(() => {
        const error = answer.int16();
        answer.compactString();
        const state = answer.compactString() ?? '';
        const timeoutMs = answer.int32();
        const startedAtMs = answer.int64();
        const producerId = answer.bigint64();
        const epoch = answer.int16();
        readTopics(answer, () => answer.int32());
        answer.tags();
        return { error, state, timeoutMs, startedAtMs, producerId, epoch };
      });
      return described ?? { error: -1, state: '', timeoutMs: 0, startedAtMs: -1, producerId: -1n, epoch: -1 };
    },
  );
}

/** Writes an abort marker on one partition, past its coordinator. */
export function writeAbortMarker(open: OpenTransaction): Call<Answer> {
  return flexible(
    27,
    'WriteTxnMarkers',
    1,
    (body) => {
      body.compactArray([open], ({ producerId, epoch, partition, coordinatorEpoch }) => {
        body.int64(producerId).int16(epoch).bool(false);
        writeTopics(body, [open], () => body.int32(partition));
        // -1: this producer never ended a transaction here; the broker wants a coordinator's epoch all the same.
        body.int32(Math.max(coordinatorEpoch, 0)).tags();
      });
      body.tags();
    },
    (answer) => {
      const [error] = answer
        .compactArray(() => {
          answer.int64();
          const errors = readTopics(answer, () => {
            answer.int32();
            const of = answer.int16();
            answer.tags();
            return of;
          });
          answer.tags();
          return errors;
        })
        .flat();
      return { error: error ?? -1 };
    },
  );
}
