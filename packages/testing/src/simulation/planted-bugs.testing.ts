import {
  partitionOf,
  recordsOf,
  stateTopicOf,
  type Tenure,
  type FetchedBatch,
  type GroupOffsets,
  type Log,
  type LogReader,
  type LogRecord,
  type LogTransaction,
  type LogWriter,
  type Outcome,
  type OutRecord,
} from '@headwater/core';
import type { PlantedBug } from './instance.js';
import { PROCESSOR } from './processor.js';

/** Engines that are wrong in one thing each, made by standing between the right one and its ports. Every one must be caught. */
export const PLANTED_BUGS: Readonly<Record<string, () => PlantedBug>> = {
  'an unknown outcome taken for committed': () => ({
    log: writing(async (writer, records, offsets) => {
      const end = await writer.transact(records, offsets);
      if (end.outcome !== 'unknown') return end;
      await writer.fence();
      return { outcome: 'committed', appended: [] };
    }),
  }),
  'an unknown outcome taken for aborted, and the batch sent again': () => ({
    log: writing(async (writer, records, offsets) => {
      for (;;) {
        const end = await writer.transact(records, offsets);
        if (end.outcome !== 'unknown') return end;
        await writer.fence();
      }
    }),
  }),
  'an aborted transaction taken for committed': () => ({
    log: writing(async (writer, records, offsets) => {
      const end = await writer.transact(records, offsets);
      return end.outcome === 'aborted' ? { outcome: 'committed', appended: [] } : end;
    }),
  }),
  'state applied before the commit': () => ({ log: believing }),
  'offsets not in the transaction': () => ({
    log: writing(async (writer, records, offsets) => {
      const end = await writer.transact(records);
      if (end.outcome === 'committed') await writer.transact([], offsets);
      return end;
    }),
  }),
  'state not in the transaction': () => ({
    log: writing((writer, records, offsets) =>
      inTwo(writer, { records: records.filter(isOutput), offsets }, { records: records.filter(isEntry) }),
    ),
  }),
  'outputs not in the transaction': () => ({
    log: writing((writer, records, offsets) =>
      inTwo(writer, { records: records.filter(isEntry), offsets }, { records: records.filter(isOutput) }),
    ),
  }),
  'offsets without member and generation': () => ({
    log: writing((writer, records, offsets) =>
      writer.transact(
        records,
        offsets && { ...offsets, membership: { ...offsets.membership, memberId: '', generation: -1 } },
      ),
    ),
  }),
  'timers kept in memory only': () => ({ log: withoutEntries('t:') }),
  'parked keys kept in memory only': () => ({ log: withoutEntries('p:') }),
  'the offset of the record handled last kept, not of the next': () => ({
    log: writing((writer, records, offsets) => writer.transact(records.map(oneLess), offsets)),
  }),
  'a stamp ahead of what the state includes': () => ({
    log: writing(async (writer, records, offsets) => {
      const end = await writer.transact(records, offsets);
      if (end.outcome !== 'committed') return end;
      return { ...end, appended: end.appended.map((of) => ({ ...of, next: of.next + 3 })) };
    }),
  }),
  'restore that ends before the state includes the committed offsets': () => ({
    log: (log) =>
      withAdmin(log, {
        committedOffsets: async (groupId, partitions) =>
          (await log.admin.committedOffsets(groupId, partitions)).map((of) => ({ ...of, next: -1 })),
      }),
  }),
  'offsets read without waiting for those that are pending, and taken for the state': () => ({
    log: (log) =>
      withAdmin(log, {
        committedOffsets: async (groupId, partitions) => {
          const topics = [...new Set(partitions.map(({ topic }) => topic))];
          const found = await log.admin.lag(groupId, topics);
          return found
            .filter((of) => partitions.some(({ topic, partition }) => topic === of.topic && partition === of.partition))
            .map(({ topic, partition, committed }) => ({ topic, partition, next: committed }));
        },
      }),
  }),
  'restore that begins behind the first record': () => ({
    log: seeking((offset, isState) => (isState ? offset + 1 : offset)),
  }),
  'input read from one record before': () => ({
    log: seeking((offset, isState) => (isState ? offset : Math.max(0, offset - 1))),
  }),
  'aborted records delivered': leaking,
  'a fetch delivered again after a lost one': () => ({
    log: (log) => ({ ...log, reader: () => repeating(log.reader()) }),
  }),
  'the next assignment begun before the work of the last one has settled, under its membership': () => ({ log: hasty }),
  'timers fired before their time': () => ({
    clock: (clock) => ({ ...clock, now: () => clock.now() + 2_000 }),
  }),
};

/** A seed that catches those that few seeds do. It is tried first; where it does not any more, all are. */
export const CAUGHT_BY: Readonly<Record<string, number>> = {
  'an unknown outcome taken for committed': 19,
  'offsets without member and generation': 20,
  'a stamp ahead of what the state includes': 33,
  'restore that ends before the state includes the committed offsets': 111,
  'offsets read without waiting for those that are pending, and taken for the state': 168,
};

/** What the bugs stand on, with nothing wrong: no run may be told wrong for it. */
export function nothingPlanted(): PlantedBug {
  const through = writing((writer, records, offsets) => writer.transact(records, offsets));
  return { log: (log) => seeking((offset) => offset)(withAdmin(through(log), {})), clock: (clock) => ({ ...clock }) };
}

type Transact = (writer: LogWriter, records: readonly OutRecord[], offsets?: GroupOffsets) => Promise<Outcome>;

/** Replaces how transactions are written. */
function writing(transact: Transact): (log: Log) => Log {
  return (log) => ({
    ...log,
    writer: (options) => {
      const writer = log.writer(options);
      return wrapped(writer, { transact: (records, offsets) => transact(writer, records.flatMap(recordsOf), offsets) });
    },
  });
}

function wrapped(writer: LogWriter, change: Partial<LogWriter>): LogWriter {
  return {
    transactionalId: writer.transactionalId,
    fence: () => writer.fence(),
    begin: () => writer.begin(),
    transact: (records, offsets) => writer.transact(records, offsets),
    close: () => writer.close(),
    ...change,
  };
}

/** Answers `committed` at once; what comes of it is nobody's business. */
function believing(log: Log): Log {
  return {
    ...log,
    writer: (options) => {
      const writer = log.writer(options);
      let last: Promise<unknown> = Promise.resolve();
      return wrapped(writer, {
        transact: (records, offsets) => {
          // Its own: the engine writes over what it takes for committed.
          const own = records.flatMap(recordsOf).map(copied);
          last = last.then(() => writer.transact(own, offsets));
          return Promise.resolve({ outcome: 'committed', appended: [] });
        },
        fence: () => last.then(() => writer.fence()),
      });
    },
  };
}

const copied = (record: OutRecord): OutRecord => ({
  ...record,
  key: record.key && Buffer.from(record.key),
  value: record.value && Buffer.from(record.value),
});

interface Part {
  readonly records: readonly OutRecord[];
  readonly offsets?: GroupOffsets | undefined;
}

async function inTwo(writer: LogWriter, first: Part, second: Part): Promise<Outcome> {
  const end = await writer.transact(first.records, first.offsets);
  return end.outcome === 'committed' ? writer.transact(second.records, second.offsets) : end;
}

const isEntry = ({ topic }: OutRecord): boolean => topic === stateTopicOf(PROCESSOR);
const isOutput = (record: OutRecord): boolean => !isEntry(record);

function withoutEntries(prefix: string): (log: Log) => Log {
  const kept = (record: OutRecord) => !isEntry(record) || !record.key!.toString().startsWith(prefix);
  return writing((writer, records, offsets) => writer.transact(records.filter(kept), offsets));
}

function oneLess(record: OutRecord): OutRecord {
  if (!isEntry(record) || !record.key!.toString().startsWith('o:')) return record;
  return { ...record, value: Buffer.from(String(Number(record.value!.toString()) - 1)) };
}

function withAdmin(log: Log, change: Partial<Log['admin']>): Log {
  const { admin } = log;
  return {
    ...log,
    admin: {
      abilities: () => admin.abilities(),
      ensureTopics: (specs) => admin.ensureTopics(specs),
      partitionCounts: (topics) => admin.partitionCounts(topics),
      offsets: (topic) => admin.offsets(topic),
      committedOffsets: (groupId, partitions) => admin.committedOffsets(groupId, partitions),
      deleteTopics: (topics) => admin.deleteTopics(topics),
      offsetsForTime: (topic, timestampMs) => admin.offsetsForTime(topic, timestampMs),
      lag: (groupId, topics) => admin.lag(groupId, topics),
      cleanupPolicy: (topic) => admin.cleanupPolicy(topic),
      diffTopics: (specs) => admin.diffTopics(specs),
      applyTopics: (specs) => admin.applyTopics(specs),
      topicIds: (topics) => admin.topicIds(topics),
      openTransactions: (topic, olderThanMs) => admin.openTransactions(topic, olderThanMs),
      abortOpenTransaction: (open) => admin.abortOpenTransaction(open),
      ...change,
    },
  };
}

function reading(reader: LogReader, change: Partial<LogReader>): LogReader {
  return {
    seek: (topic, partition, offset) => reader.seek(topic, partition, offset),
    drop: (topic, partition) => reader.drop(topic, partition),
    pause: (topic, partition) => reader.pause(topic, partition),
    resume: (topic, partition) => reader.resume(topic, partition),
    poll: (options) => reader.poll(options),
    close: () => reader.close(),
    ...change,
  };
}

function seeking(to: (offset: number, isState: boolean) => number): (log: Log) => Log {
  return (log) => ({
    ...log,
    reader: () => {
      const reader = log.reader();
      return reading(reader, {
        seek: (topic, partition, offset) =>
          reader.seek(topic, partition, to(offset, topic === stateTopicOf(PROCESSOR))),
      });
    },
  });
}

/** Delivers what the producer of the input aborted, where it stands in the log. */
function leaking(): PlantedBug {
  const aborted: LogRecord[] = [];
  return {
    feeder: (log) => ({
      ...log,
      writer: (options) => {
        const writer = log.writer(options);
        return wrapped(writer, { begin: () => remembering(log, writer.begin(), aborted) });
      },
    }),
    log: (log) => ({
      ...log,
      reader: () => {
        const reader = log.reader();
        return reading(reader, {
          poll: async (options) => (await reader.poll(options)).map((batch) => withAborted(batch, aborted)),
        });
      },
    }),
  };
}

/** The only writer of the input: a record's offset is where its partition ended before it. */
function remembering(log: Log, open: LogTransaction, aborted: LogRecord[]): LogTransaction {
  const written: LogRecord[] = [];
  return {
    append: async (records) => {
      for (const { topic, key, value } of records.flatMap(recordsOf)) {
        const ends = await log.admin.offsets(topic);
        const partition = partitionOf(key!, ends.length);
        written.push({ topic, partition, offset: ends[partition]!.high, key, value, headers: [], timestamp: 0 });
      }
      await open.append(records);
    },
    commit: (offsets) => open.commit(offsets),
    abort: (cause) => {
      aborted.push(...written);
      return open.abort(cause);
    },
  };
}

function withAborted(batch: FetchedBatch, aborted: readonly LogRecord[]): FetchedBatch {
  const { topic, partition, from, nextOffset } = batch;
  const between = aborted.filter(
    (of) => of.topic === topic && of.partition === partition && of.offset >= from && of.offset < nextOffset,
  );
  return { ...batch, records: [...batch.records, ...between].sort((a, b) => a.offset - b.offset) };
}

/** Every fifth fetch brings what the one before brought. */
function repeating(reader: LogReader): LogReader {
  let last: Awaited<ReturnType<LogReader['poll']>> = [];
  let polls = 0;
  return reading(reader, {
    poll: async (options) => {
      if (++polls % 5 === 0 && last.length > 0) return last;
      last = await reader.poll(options);
      return last;
    },
  });
}

/** Gives back at once what it is asked for, whatever is in work, and commits under whatever membership is the newest. */
function hasty(log: Log): Log {
  let newest: Tenure | undefined;
  const late = writing((writer, records, offsets) =>
    writer.transact(records, offsets && newest && { ...offsets, membership: newest.membership }),
  );
  const giveBack = async (tenure: Tenure) => {
    while (!tenure.signal.aborted) {
      for (const share of tenure.shares) share.signal.addEventListener('abort', () => share.release(), { once: true });
      await tenure.next();
    }
  };
  return {
    ...late(log),
    group: (options) => {
      const group = log.group(options);
      return {
        stop: () => group.stop(),
        run: (work, onError) => group.run(work, onError),
        hold: (work, onError) =>
          group.hold((tenure) => {
            newest = tenure;
            const over = new Promise<void>((resolve) => {
              tenure.signal.addEventListener('abort', () => resolve());
            });
            void giveBack(tenure);
            return Promise.race([work(tenure), over]);
          }, onError),
      };
    },
  };
}
