import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogRecord, LogWriter, OutRecord } from '@headwater/core';
import { faultProxy } from '@headwater/testing';
import { committedRecords, newTopic, recordsOf, testBrokers, testLog, texts, unique } from './broker.testing.js';
import { until } from './until.testing.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { KafkaReader } from './reader.js';
import { Wire } from './wire.js';
import { smallReader } from './wire.testing.js';

describe('reader', () => {
  let log: Log;
  beforeAll(() => {
    log = testLog();
  });
  afterAll(() => log.close());

  const one = (topic: string, value: string, key: Buffer | null = null): OutRecord[] => [
    { topic, partition: 0, key, value: Buffer.from(value) },
  ];

  async function writer(): Promise<LogWriter> {
    const made = log.writer({ transactionalId: unique('writer'), transactionTimeoutMs: 30_000 });
    await made.fence();
    return made;
  }

  it('S49 delivers a key of four zero bytes as data, inside and outside of aborted ranges', async () => {
    const topic = await newTopic(log);
    const [a, b] = [await writer(), await writer()];
    const zeros = Buffer.alloc(4);
    await a.transact(one(topic, 'before', zeros));
    const aborted = a.begin();
    await aborted.append(one(topic, 'aborted 1', zeros));
    await b.transact(one(topic, 'inside', zeros));
    await aborted.append(one(topic, 'aborted 2', Buffer.from('k')));
    await aborted.abort();
    await b.transact(one(topic, 'after', zeros));
    const records = await committedRecords(log, topic);
    expect(texts(records)).toEqual(['before', 'inside', 'after']);
    expect(records.map(({ key }) => key)).toEqual([zeros, zeros, zeros]);
  });

  it('S50 never shows an aborted transaction larger than a fetch', async () => {
    const topic = await newTopic(log);
    const a = await writer();
    const aborted = a.begin();
    for (let n = 0; n < 20; n++) await aborted.append(one(topic, `${n}`.padEnd(5_000, '.')));
    await aborted.abort();
    await a.transact(one(topic, 'OK'));
    await committedRecords(log, topic);
    const wire = new Wire(kafkajsClient({ brokers: testBrokers(), clientId: 'small' }).connections, {
      brokers: testBrokers(),
      requestTimeoutMs: 4_000,
    });
    const small = new KafkaReader(wire, { maxBytes: 12_000 });
    small.seek(topic, 0, 0);
    const seen: LogRecord[] = [];
    let fetches = 0;
    for (; seen.length === 0; fetches++) seen.push(...recordsOf(await small.poll()));
    expect(texts(seen)).toEqual(['OK']);
    expect(fetches).toBeGreaterThan(3);
    await wire.close();
  });

  it('is woken by a commit, and holds back neither a writer nor another reader while it waits', async () => {
    const [idle, topic] = [await newTopic(log), await newTopic(log)];
    const [waiting, other] = [log.reader(), log.reader()];
    waiting.seek(idle, 0, 0);
    const stop = new AbortController();
    const polling = waiting.poll({ maxWaitMs: 60_000, signal: stop.signal });
    expect(await (await writer()).transact(one(topic, 'x'))).toMatchObject({ outcome: 'committed' });
    expect(texts(await readTo(topic, 0, 'x', other))).toEqual(['x']);
    expect(await (await writer()).transact(one(idle, 'wake'))).toMatchObject({ outcome: 'committed' });
    expect(texts(recordsOf(await polling))).toEqual(['wake']);
    await Promise.all([waiting.close(), other.close()]);
  });

  it('S91 reads a partition that is added in the middle of the backlog of another one at once', async () => {
    const topic = await newTopic(log, 2);
    const a = await writer();
    for (let n = 0; n < 40; n++) await a.transact(one(topic, `${n}`.padEnd(5_000, '.')));
    await a.transact([{ topic, partition: 1, key: null, value: Buffer.from('added') }]);
    await committedRecords(log, topic);
    const { reader, close } = smallReader(12_000);
    reader.seek(topic, 0, 0);
    const backlog = recordsOf(await reader.poll({ maxWaitMs: 10_000 }));
    reader.seek(topic, 1, 0);
    const polls = [await reader.poll({ maxWaitMs: 10_000 }), await reader.poll({ maxWaitMs: 10_000 })];
    expect(texts(recordsOf(polls.flat().filter(({ partition }) => partition === 1)))).toEqual(['added']);
    expect(backlog.length + recordsOf(polls.flat()).length).toBeLessThan(20);
    await close();
  });

  /** A topic of `count` batches of one record, each its number, and a log that counts the fetches it sends. */
  async function counting(count: number, bytes: number, options: { maxPollBytes?: number } = {}) {
    const topic = await newTopic(log);
    const a = await writer();
    for (let n = 0; n < count; n++) await a.transact(one(topic, `${n}`.padEnd(bytes, '.')));
    // A marker may stand behind the record of the transaction after it: where each is, only the log tells.
    const offsets = (await committedRecords(log, topic)).map(({ offset }) => offset);
    const [host, port] = testBrokers()[0]!.split(':') as [string, string];
    const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    let fetches = 0;
    proxy.decide = ({ apiName }) => ((fetches += apiName === 'Fetch' ? 1 : 0), undefined);
    const behind = testLog({ connect: proxy.connect, ...options });
    const reader = behind.reader();
    reader.seek(topic, 0, 0);
    const numbers = async (): Promise<number[]> =>
      texts(recordsOf(await reader.poll({ maxWaitMs: 10_000 }))).map((text) => Number.parseInt(text!, 10));
    const close = () => behind.close().then(() => proxy.close());
    return { topic, offsets, reader, numbers, fetches: () => fetches, close };
  }

  it('asks once for what comes next while records are handled, and passes it by when another place is sought', async () => {
    const { topic, offsets, reader, numbers, fetches, close } = await counting(30, 5_000, { maxPollBytes: 15_000 });
    const first = await numbers();
    await until(() => (fetches() === 2 ? true : undefined));
    const second = await numbers();
    expect(second[0]).toBe(first.at(-1)! + 1);
    await until(() => (fetches() === 3 ? true : undefined));
    reader.seek(topic, 0, offsets[20]!);
    expect((await numbers())[0]).toBe(20);
    reader.drop(topic, 0);
    expect(await reader.poll({ maxWaitMs: 50 })).toEqual([]);
    await close();
  });

  it('hands out in portions what one fetch brought, each record once, and passes by what waits when another place is sought', async () => {
    const { topic, offsets, reader, numbers, fetches, close } = await counting(24, 100_000);
    const portions = [await numbers(), await numbers(), await numbers()];
    expect(portions.flat()).toEqual(portions.flat().map((_, n) => n));
    for (const portion of portions) expect(portion.length).toBeLessThanOrEqual(3);
    // The one they came of, and the one behind it.
    await until(() => (fetches() === 2 ? true : undefined));
    const rest: number[] = [];
    while (rest.at(-1) !== 23) rest.push(...(await numbers()));
    expect(rest.map((n) => n - portions.flat().length)).toEqual(rest.map((_, n) => n));
    expect(fetches()).toBeLessThanOrEqual(4);
    reader.seek(topic, 0, 0);
    expect((await numbers())[0]).toBe(0);
    reader.seek(topic, 0, offsets[20]!);
    expect((await numbers())[0]).toBe(20);
    reader.seek(topic, 0, 0);
    expect((await numbers())[0]).toBe(0);
    reader.drop(topic, 0);
    expect(await reader.poll({ maxWaitMs: 50 })).toEqual([]);
    await close();
  });

  it('hands out at most one batch of a partition in a poll, also where one fetch ends and the next has landed', async () => {
    const { reader, fetches, close } = await counting(24, 100_000);
    const seen: number[] = [];
    const poll = async (maxBytes: number) => {
      const batches = await reader.poll({ maxWaitMs: 10_000, maxBytes });
      expect(batches).toHaveLength(1);
      seen.push(...texts(recordsOf(batches)).map((text) => Number.parseInt(text!, 10)));
    };
    await poll(0);
    await until(() => (fetches() === 2 ? true : undefined));
    for (let n = 0; n < 4; n++) await poll(1);
    expect(seen).toEqual([0, 1, 2, 3, 4]);
    while (seen.at(-1) !== 23) await poll(Infinity);
    expect(seen).toEqual(seen.map((_, n) => n));
    await close();
  });

  it('keeps what has come of a paused partition, and what was on its way, for when it is resumed', async () => {
    const { topic, reader, numbers, fetches, close } = await counting(24, 100_000);
    expect(await numbers()).toEqual([0, 1, 2]);
    await until(() => (fetches() === 2 ? true : undefined));
    reader.pause(topic, 0);
    expect(await reader.poll({ maxWaitMs: 50 })).toEqual([]);
    reader.resume(topic, 0);
    const rest: number[] = [];
    while (rest.at(-1) !== 23) rest.push(...(await numbers()));
    expect(rest.map((n) => n - 3)).toEqual(rest.map((_, n) => n));
    // 2,400,000 bytes, at most 1,048,576 each.
    expect(fetches()).toBeLessThanOrEqual(4);
    await close();
  });

  async function readTo(topic: string, from: number, last: string, reader = log.reader()): Promise<LogRecord[]> {
    reader.seek(topic, 0, from);
    const records: LogRecord[] = [];
    while (records.at(-1)?.value?.toString() !== last) records.push(...recordsOf(await reader.poll()));
    return records;
  }
});
