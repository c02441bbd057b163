import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, LogRecord, LogWriter, OutRecord } from '@headwater/core';
import { committedRecords, newTopic, recordsOf, testBrokers, testLog, texts, unique } from './broker.testing.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { KafkaReader } from './reader.js';
import { Wire } from './wire.js';

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

  it('S46 S50 leaves out the records of two writers that abort in interleaved order', async () => {
    const topic = await newTopic(log);
    const [a, b] = [await writer(), await writer()];
    const [ofA, ofB] = [a.begin(), b.begin()];
    await ofA.append(one(topic, 'A1'));
    await ofB.append(one(topic, 'B1'));
    await ofA.append(one(topic, 'A2'));
    await ofB.append(one(topic, 'B2'));
    expect(await ofB.abort()).toMatchObject({ outcome: 'aborted' });
    await ofA.append(one(topic, 'A3'));
    expect(await ofA.abort()).toMatchObject({ outcome: 'aborted' });
    expect(await b.transact(one(topic, 'OK'))).toMatchObject({ outcome: 'committed' });
    expect(texts(await committedRecords(log, topic))).toEqual(['OK']);
  });

  it('S47 leaves out the rest of an aborted transaction a fetch begins inside of', async () => {
    const topic = await newTopic(log);
    const a = await writer();
    const aborted = a.begin();
    for (let n = 0; n < 6; n++) await aborted.append([...one(topic, `${n}a`), ...one(topic, `${n}b`)]);
    await aborted.abort();
    await a.transact(one(topic, 'OK'));
    await committedRecords(log, topic);
    for (const from of [0, 1, 5, 11]) expect(texts(await readTo(topic, from, 'OK'))).toEqual(['OK']);
  });

  it('S48 shows five committed and none of five aborted transactions of one writer', async () => {
    const topic = await newTopic(log);
    const a = await writer();
    for (let n = 0; n < 5; n++) {
      const aborted = a.begin();
      await aborted.append(one(topic, `aborted ${n}`));
      await aborted.abort();
      await a.transact(one(topic, `committed ${n}`));
    }
    expect(texts(await committedRecords(log, topic))).toEqual([0, 1, 2, 3, 4].map((n) => `committed ${n}`));
  });

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

  it('moves on over what it does not show', async () => {
    const topic = await newTopic(log);
    const a = await writer();
    const aborted = a.begin();
    await aborted.append(one(topic, 'aborted'));
    await aborted.abort();
    await committedRecords(log, topic);
    const reader = log.reader();
    reader.seek(topic, 0, 0);
    expect(await reader.poll()).toEqual([
      expect.objectContaining({ from: 0, records: [], nextOffset: 2, lastStableOffset: 2, highWatermark: 2 }),
    ]);
    await reader.close();
  });

  it('names the offset and the range of the log when a position is not in it', async () => {
    const topic = await newTopic(log);
    await (await writer()).transact(one(topic, 'x'));
    const reader = log.reader();
    reader.seek(topic, 0, 77);
    await expect(reader.poll()).rejects.toMatchObject({
      code: 'LOG_OFFSET_OUT_OF_RANGE',
      facts: { topic, partition: 0, offset: 77, start: 0, high: 2 },
    });
    reader.drop(topic, 0);
    expect(await reader.poll({ maxWaitMs: 10 })).toEqual([]);
    await reader.close();
  });

  it('waits no longer than asked, ends a poll at its signal, and reads on after it', async () => {
    const topic = await newTopic(log);
    const reader = log.reader();
    expect(await reader.poll({ maxWaitMs: 20 })).toEqual([]);
    reader.seek(topic, 0, 0);
    const started = performance.now();
    expect(await reader.poll({ maxWaitMs: 50 })).toEqual([]);
    const stop = new AbortController();
    const polling = reader.poll({ maxWaitMs: 60_000, signal: stop.signal });
    stop.abort();
    expect(await polling).toEqual([]);
    expect(performance.now() - started).toBeLessThan(10_000);
    await (await writer()).transact(one(topic, 'later'));
    expect(texts(await readTo(topic, 0, 'later', reader))).toEqual(['later']);
    await reader.close();
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

  it('finds a topic that is made after it was sought', async () => {
    const topic = unique('late');
    const reader = log.reader();
    reader.seek(topic, 0, 0);
    expect(await reader.poll({ maxWaitMs: 20 })).toEqual([]);
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact' }]);
    await (await writer()).transact(one(topic, 'x', Buffer.from('k')));
    expect(texts(await readTo(topic, 0, 'x', reader))).toEqual(['x']);
    await reader.close();
  });

  it('ends a poll in flight when it is closed', async () => {
    const topic = await newTopic(log);
    const reader = log.reader();
    reader.seek(topic, 0, 0);
    const polling = reader.poll({ maxWaitMs: 60_000 });
    const refused = expect(polling).rejects.toMatchObject({ code: 'LOG_CLOSED' });
    await reader.close();
    await refused;
  });

  async function readTo(topic: string, from: number, last: string, reader = log.reader()): Promise<LogRecord[]> {
    reader.seek(topic, 0, from);
    const records: LogRecord[] = [];
    while (records.at(-1)?.value?.toString() !== last) records.push(...recordsOf(await reader.poll()));
    return records;
  }
});
