import type { Log, LogInput, LogReader, LogTransaction, LogWriter, Outcome } from '@headwater/core';
import { ZERO_LSN } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import type { SourceConnection } from '../source.js';
import type { SourceTables } from '../source-tables.js';
import { POSITION_TOPIC } from './instance.testing.js';
import type { PlantedBug } from './instance.testing.js';

/** Captures that are wrong in one thing each, made by standing between the right one and its ports. Every one must be caught. */
export const PLANTED_BUGS: Readonly<Record<string, () => PlantedBug>> = {
  'one more than the end acknowledged': () => ({ status: (flush) => (flush + 1n) as Lsn }),
  'what was received acknowledged, before it is committed': () => ({ status: (_, received) => received }),
  'a keepalive counted inside an open transaction': () => ({ keepalivesFirst: true }),
  'resumed from where it received last': () => ({ resumesFromReceived: true }),
  'commit LSNs compared with end LSNs': () => ({
    log: rereading((position) => ({ ...position, commitLsn: position['endLsn']! })),
  }),
  'nothing skipped that comes again': () => ({ log: rereading((position) => ({ ...position, commitLsn: '0/0' })) }),
  'an unknown outcome taken for committed': () => ({
    log: ending(async (end, writer) => {
      if (end.outcome !== 'unknown') return end;
      await writer.fence();
      return { outcome: 'committed', appended: [] };
    }),
  }),
  'an unknown outcome taken for aborted, and the batch sent again': () => ({
    log: writing(async (writer, inputs) => {
      for (;;) {
        const end = await writer.transact(inputs);
        if (end.outcome !== 'unknown') return end;
        await writer.fence();
      }
    }),
  }),
  'an aborted transaction taken for committed': () => ({
    log: ending(async (end, writer) => {
      if (end.outcome !== 'aborted' || end.fenced !== undefined) return end;
      await writer.fence();
      return { outcome: 'committed', appended: [] };
    }),
  }),
  'the position in a transaction of its own, after the rows': () => ({
    log: writing((writer, inputs) => inTwo(writer, inputs, isRow, isPosition)),
  }),
  'the position in a transaction of its own, before the rows': () => ({
    log: writing((writer, inputs) => inTwo(writer, inputs, isPosition, isRow)),
  }),
  'nobody fenced': () => ({
    log: (log, instance) => ({
      ...log,
      writer: (options) => log.writer({ ...options, transactionalId: `${options.transactionalId}-${instance}` }),
    }),
  }),
  'the position not read again after the fence': () => ({ log: believing }),
  'a slot that has passed the position taken as it is': () => ({
    source: (source) => ({
      async connect() {
        const connection = await source.connect();
        return overriding(connection, {
          facts: async () => {
            const facts = await connection.facts();
            return facts.slot === undefined
              ? facts
              : { ...facts, slot: { ...facts.slot, confirmedFlushLsn: ZERO_LSN } };
          },
        });
      },
    }),
  }),
  'a row read again before its transaction is visible': () => ({
    source: (source) => ({
      async connect() {
        const connection = await source.connect();
        const readRow: SourceTables['readRow'] = (shape, key) => connection.tables.readRow(shape, key, LONG_AGO);
        return overriding(connection, { tables: replacing(connection.tables, { readRow }) });
      },
    }),
  }),
};

/** A seed that catches those that few seeds do. It is tried first; where it does not any more, all are. */
export const CAUGHT_BY: Readonly<Record<string, number>> = {
  'a keepalive counted inside an open transaction': 11,
  'an unknown outcome taken for committed': 24,
  'an unknown outcome taken for aborted, and the batch sent again': 11,
  'an aborted transaction taken for committed': 61,
  'a slot that has passed the position taken as it is': 19,
  'a row read again before its transaction is visible': 30,
};

/** What the bugs stand on, with nothing wrong: no run may be told wrong for it. */
export function nothingPlanted(): PlantedBug {
  const through = ending((end) => Promise.resolve(end));
  return {
    log: (log, instance) => rereading((position) => position)(through(log, instance), instance),
    source: (source) => ({ connect: async () => overriding(await source.connect(), {}) }),
    status: (flush) => flush,
  };
}

/** Every snapshot sees it. */
const LONG_AGO = 1;

const isPosition = ({ topic }: LogInput): boolean => topic === POSITION_TOPIC;
const isRow = (input: LogInput): boolean => !isPosition(input);

type Transact = (writer: LogWriter, inputs: readonly LogInput[]) => Promise<Outcome>;

/** Replaces how transactions are written that need no parts. */
function writing(transact: Transact): (log: Log, instance: string) => Log {
  return wrapping((writer) => ({ transact: (inputs) => transact(writer, inputs) }));
}

/** Replaces what is told of how transactions end. */
function ending(told: (end: Outcome, writer: LogWriter) => Promise<Outcome>): (log: Log, instance: string) => Log {
  return wrapping((writer) => ({
    transact: async (inputs) => told(await writer.transact(inputs), writer),
    begin: (): LogTransaction => {
      const open = writer.begin();
      return {
        append: (inputs) => open.append(inputs),
        commit: async () => told(await open.commit(), writer),
        abort: (cause) => open.abort(cause),
      };
    },
  }));
}

function wrapping(change: (writer: LogWriter) => Partial<LogWriter>): (log: Log, instance: string) => Log {
  return (log) => ({
    ...log,
    writer: (options) => {
      const writer = log.writer(options);
      return {
        transactionalId: writer.transactionalId,
        fence: () => writer.fence(),
        begin: () => writer.begin(),
        transact: (inputs) => writer.transact(inputs),
        close: () => writer.close(),
        ...change(writer),
      };
    },
  });
}

async function inTwo(
  writer: LogWriter,
  inputs: readonly LogInput[],
  first: (input: LogInput) => boolean,
  second: (input: LogInput) => boolean,
): Promise<Outcome> {
  const end = await writer.transact(inputs.filter(first));
  return end.outcome === 'committed' ? writer.transact(inputs.filter(second)) : end;
}

/** Changes positions as they are read. */
function rereading(
  change: (position: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>,
): (log: Log, instance: string) => Log {
  return (log) => ({
    ...log,
    reader: (): LogReader => {
      const reader = log.reader();
      return {
        seek: (topic, partition, offset) => reader.seek(topic, partition, offset),
        drop: (topic, partition) => reader.drop(topic, partition),
        pause: (topic, partition) => reader.pause(topic, partition),
        resume: (topic, partition) => reader.resume(topic, partition),
        close: () => reader.close(),
        poll: async (options) =>
          (await reader.poll(options)).map((batch) => ({
            ...batch,
            records: batch.records.map((record) => {
              if (record.topic !== POSITION_TOPIC || record.value === null) return record;
              const position = JSON.parse(record.value.toString()) as Record<string, unknown>;
              return { ...record, value: Buffer.from(JSON.stringify(change(position))) };
            }),
          })),
      };
    },
  });
}

/** Has the position from before the fence also after it. */
function believing(log: Log, instance: string): Log {
  let before: Awaited<ReturnType<Log['admin']['offsets']>> | undefined;
  let fenced = false;
  const fencing = wrapping((writer) => ({
    fence: async () => {
      await writer.fence();
      fenced = true;
    },
  }));
  const offsets: Log['admin']['offsets'] = async (topic) => {
    if (topic !== POSITION_TOPIC) return log.admin.offsets(topic);
    if (!fenced || before === undefined) before = await log.admin.offsets(topic);
    fenced = false;
    return before;
  };
  return { ...fencing(log, instance), admin: replacing(log.admin, { offsets }) };
}

function overriding(connection: SourceConnection, change: Partial<SourceConnection>): SourceConnection {
  return {
    tables: connection.tables,
    facts: () => connection.facts(),
    timelineSwitch: (timeline, from) => connection.timelineSwitch(timeline, from),
    lock: () => connection.lock(),
    ensurePublication: () => connection.ensurePublication(),
    dropSlot: () => connection.dropSlot(),
    createSlot: () => connection.createSlot(),
    dropPublication: () => connection.dropPublication(),
    publication: (oid) => connection.publication(oid),
    snapshotSource: () => connection.snapshotSource(),
    stream: (ack) => connection.stream(ack),
    close: () => connection.close(),
    ...change,
  };
}

/** The same object with some of its methods replaced; classes keep what is private to them. */
function replacing<T extends object>(whole: T, change: Partial<T>): T {
  return new Proxy(whole, {
    get(target, name) {
      const value: unknown = name in change ? change[name as keyof T] : target[name as keyof T];
      return typeof value === 'function' && !(name in change) ? (value.bind(target) as unknown) : value;
    },
  });
}
