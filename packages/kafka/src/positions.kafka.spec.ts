import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogReader, LogRecord, LogWriter, OutRecord, PartitionOffset } from '@headwater/core';
import { committedRecords, newTopic, recordsOf, testBrokers, testLog, texts, unique } from './broker.testing.js';
import { faultProxy, settledOffsets } from '@headwater/testing';
import { until } from './until.testing.js';
import { testWire } from './wire.testing.js';
import { flexible, readTopics, writeTopics } from './requests/call.js';

describe('where a reader stands', () => {
  let log: Log;
  let writer: LogWriter;
  beforeAll(async () => {
    log = testLog();
    writer = log.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 60_000 });
    await writer.fence();
  });
  afterAll(() => log.close());

  it('S94 begins with the first record at or after a time, an offset or the start, on empty partitions too', async () => {
    const topic = await newTopic(log, 3, { 'retention.ms': '-1' });
    // Times out of order on partition 0; partition 2 stays empty.
    const times: [number, number][] = [
      [0, 1_000],
      [0, 3_000],
      [0, 2_000],
      [0, 4_000],
      [1, 2_500],
    ];
    for (const [partition, timestamp] of times) {
      await write([{ topic, partition, key: null, value: Buffer.from(`${partition}@${timestamp}`), timestamp }]);
    }
    const first = async (from: readonly PartitionOffset[]): Promise<(string | null)[]> => {
      const ends = new Map((await settledOffsets(log, topic)).map((of) => [of.partition, of.lastStable]));
      const reader = log.reader();
      const left = new Set(from.filter((of) => of.next < ends.get(of.partition)!).map((of) => of.partition));
      for (const { partition, next } of from) reader.seek(topic, partition, next);
      const found = new Map<number, LogRecord>();
      while (left.size > 0) {
        for (const batch of await reader.poll()) {
          if (batch.records[0] && !found.has(batch.partition)) found.set(batch.partition, batch.records[0]);
          if (batch.nextOffset >= ends.get(batch.partition)!) left.delete(batch.partition);
        }
      }
      await reader.close();
      return texts([0, 1, 2].flatMap((partition) => found.get(partition) ?? []));
    };
    await settledOffsets(log, topic);
    const at = (timestampMs: number) => log.admin.offsetsForTime(topic, timestampMs);

    expect(await first(await at(-5))).toEqual(['0@1000', '1@2500']);
    expect(await first(await at(0))).toEqual(['0@1000', '1@2500']);
    expect(await first(await at(1_000))).toEqual(['0@1000', '1@2500']);
    expect(await first(await at(1_001))).toEqual(['0@3000', '1@2500']);
    expect(await first(await at(2_600))).toEqual(['0@3000']);
    expect(await first(await at(4_000))).toEqual(['0@4000']);
    const ends = (await log.admin.offsets(topic)).map(({ partition, lastStable }) => ({
      topic,
      partition,
      next: lastStable,
    }));
    expect(await at(4_001)).toEqual(ends);
    const starts = [0, 1, 2].map((partition) => ({ topic, partition, next: 0 }));
    expect(await first(starts)).toEqual(['0@1000', '1@2500']);
    const third = (await committedRecords(log, topic)).filter(({ partition }) => partition === 0)[2]!;
    expect(await first([{ topic, partition: 0, next: third.offset }])).toEqual(['0@2000']);

    // Beside an open transaction the end is the last stable offset: what it may still commit comes after it.
    const open = writer.begin();
    await open.append([{ topic, partition: 2, key: null, value: Buffer.from('2@9000'), timestamp: 9_000 }]);
    expect((await at(9_000))[2]).toEqual({ topic, partition: 2, next: 0 });
    await open.commit();
    await settledOffsets(log, topic);
    expect(await first(await at(9_000))).toEqual(['2@9000']);
  });

  it('S12 stops at an offset that was removed, naming partition, wanted offset and range, and never jumps', async () => {
    const topic = await newTopic(log, 2);
    for (const n of [0, 1, 2, 3]) await write([text(topic, 0, `a${n}`), text(topic, 1, `b${n}`)]);
    const reader = log.reader();
    for (const partition of [0, 1]) reader.seek(topic, partition, 0);
    await deleteRecords(topic, 0, 5);
    const outOfRange = {
      code: 'LOG_OFFSET_OUT_OF_RANGE',
      facts: { topic, partition: 0, offset: 0, start: 5, high: 8 },
    };
    // The other partition loses nothing by it, and goes on between the errors.
    const others: (string | null)[] = [];
    for (let errors = 0; errors < 3 || others.at(-1) !== 'b3';) {
      const batches = await reader.poll().catch((error: unknown) => {
        expect(error).toMatchObject(outOfRange);
        errors++;
        return [];
      });
      others.push(...texts(recordsOf(batches)));
    }
    expect(others).toEqual(['b0', 'b1', 'b2', 'b3']);
    await write([text(topic, 1, 'b4')]);
    reader.pause(topic, 0);
    expect(await readTo(reader, 'b4')).toEqual(['b4']);
    // The range tells where reading can go on.
    reader.seek(topic, 0, 5);
    expect(await readTo(reader, 'a3')).toEqual(['a3']);
    await reader.close();
  });

  it('S106 names a topic deleted while it is read, goes on with others, and takes up the one made again from where it is told', async () => {
    const [gone, stays] = [await newTopic(log), await newTopic(log)];
    const [reader, other] = [log.reader(), log.reader()];
    reader.seek(gone, 0, 0);
    reader.seek(stays, 0, 0);
    other.seek(stays, 0, 0);
    await write([text(gone, 0, 'old 1'), text(gone, 0, 'old 2'), text(stays, 0, 'kept')]);
    expect(await readTo(other, 'kept')).toEqual(['kept']);
    const seen: (string | null)[] = [];
    await until(async () => (seen.push(...texts(recordsOf(await reader.poll()))), seen.length === 3 || undefined));
    await log.admin.deleteTopics([gone]);
    await until(() => failure(reader, 'LOG_TOPIC_MISSING', { topic: gone }));
    // A reader of other topics never hears of it; this one goes on once it drops the topic.
    await write([text(stays, 0, 'on')]);
    expect(await readTo(other, 'on')).toEqual(['on']);
    reader.drop(gone, 0);
    expect(await readTo(reader, 'on')).toEqual(['on']);
    await log.admin.ensureTopics([{ topic: gone, partitions: 1, cleanupPolicy: 'delete' }]);
    await write([text(gone, 0, 'new')]);
    reader.seek(gone, 0, 0);
    expect(await readTo(reader, 'new')).toEqual(['new']);
    await Promise.all([reader.close(), other.close()]);
  });

  it('reads nothing at its old offsets from a topic that was deleted and made again, naming both ids', async () => {
    const topic = await newTopic(log);
    const before = await log.admin.topicIds([topic]);
    const reader = log.reader();
    reader.seek(topic, 0, 0);
    await write([text(topic, 0, 'old')]);
    expect(await readTo(reader, 'old')).toEqual(['old']);
    await log.admin.deleteTopics([topic]);
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'delete' }]);
    // More than there was: an offset of the old topic lies within the new one.
    for (const n of [0, 1, 2]) await write([text(topic, 0, `new ${n}`)]);
    const found = (await log.admin.topicIds([topic])).get(topic);
    await until(() => failure(reader, 'LOG_TOPIC_RECREATED', { topic, wanted: before.get(topic), found }));
    await until(() => failure(reader, 'LOG_TOPIC_RECREATED', { topic }));
    reader.seek(topic, 0, 0);
    expect(await readTo(reader, 'new 2')).toEqual(['new 0', 'new 1', 'new 2']);
    await reader.close();
  });

  it('waits for a new leader that does not know its high watermark yet', async () => {
    const topic = await newTopic(log);
    await write([text(topic, 0, 'a')]);
    const [settled] = await settledOffsets(log, topic);
    const [host, port] = testBrokers()[0]!.split(':') as [string, string];
    const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    let unavailable = 0;
    // Of one partition: the error, then time, offset, epoch and three empty tag sections.
    const rewrite = (frame: Buffer): Buffer => {
      const changed = Buffer.from(frame);
      changed.writeInt16BE(78, frame.length - 25);
      return changed;
    };
    proxy.decide = ({ apiName }) =>
      apiName === 'ListOffsets' && unavailable++ < 2 ? { at: 'response', act: 'rewrite', rewrite } : undefined;
    const behind = testLog({ connect: proxy.connect });
    expect(await behind.admin.offsets(topic)).toEqual([settled]);
    expect(unavailable).toBeGreaterThan(2);
    await behind.close();
    await proxy.close();
  });

  async function write(records: readonly OutRecord[]): Promise<void> {
    expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
  }

  const text = (topic: string, partition: number, value: string): OutRecord => ({
    topic,
    partition,
    key: null,
    value: Buffer.from(value),
  });

  async function readTo(reader: LogReader, last: string): Promise<(string | null)[]> {
    const seen: (string | null)[] = [];
    return until(async () => {
      seen.push(...texts(recordsOf(await reader.poll())));
      return seen.at(-1) === last ? seen : undefined;
    });
  }

  /** True when the poll fails so; a record must never come instead. */
  async function failure(reader: LogReader, code: string, facts: object): Promise<true | undefined> {
    try {
      expect(recordsOf(await reader.poll({ maxWaitMs: 50 }))).toEqual([]);
      return undefined;
    } catch (error) {
      expect(error).toMatchObject({ code, facts });
      return true;
    }
  }
});

async function deleteRecords(topic: string, partition: number, before: number): Promise<void> {
  const call = flexible(
    21,
    'DeleteRecords',
    2,
    (body) => {
      const partitions = [{ topic, partition, before }];
      writeTopics(body, partitions, (of) => body.int32(of.partition).int64(of.before).tags())
        .int32(4_000)
        .tags();
    },
    (answer) => {
      answer.int32();
      return readTopics(answer, () => {
        const deleted = { partition: answer.int32(), start: answer.int64(), error: answer.int16() };
        answer.tags();
        return deleted;
      });
    },
  );
  const wire = testWire();
  const leader = (await wire.leaders(topic))![partition]!;
  expect(await wire.send(leader, call)).toEqual([{ partition, start: before, error: 0 }]);
  await wire.close();
}
