import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { FetchedBatch, Log, LogWriter, OutRecord } from '@headwater/core';
import { faultProxy, settledOffsets } from '@headwater/testing';
import { committedRecords, newTopic, recordsOf, testBrokers, testLog, texts, unique } from './broker.testing.js';
import { until } from './until.testing.js';
import { smallReader } from './wire.testing.js';

const RECORD_BYTES = 5_000;

describe('reader under faults and limits', () => {
  let log: Log;
  let writer: LogWriter;
  beforeAll(async () => {
    log = testLog();
    writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
  });
  afterAll(() => log.close());

  it('S80 names partition and offset of a batch that does not fit its CRC; delivers nothing of it, skips nothing', async () => {
    const topic = await newTopic(log);
    const written = ['before', 'the spoilt one', 'after'];
    for (const value of written) {
      await writer.transact([record(topic, 0, value, 0)]);
      // Its marker may else stand behind the next record.
      await settledOffsets(log, topic);
    }
    const [host, port] = testBrokers()[0]!.split(':') as [string, string];
    const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    const behind = testLog({ connect: proxy.connect });
    const reader = behind.reader();
    reader.seek(topic, 0, 0);
    const seen: (string | null)[] = [];
    // Counted from the end of the answer: within the value of the second record, before two markers and another batch.
    for (const byte of [-236, -240, -244]) {
      proxy.decide = ({ apiName }) => (apiName === 'Fetch' ? { at: 'response', act: 'flip', byte } : undefined);
      if (seen.length === 0) seen.push(...texts(recordsOf(await reader.poll())));
      expect(seen).toEqual(['before']);
      for (let polls = 0; polls < 2; polls++) {
        await expect(reader.poll({ maxWaitMs: 10_000 })).rejects.toMatchObject({
          code: 'LOG_CORRUPT',
          facts: { topic, partition: 0, offset: 2 },
        });
      }
    }
    proxy.decide = () => undefined;
    await until(async () => (seen.push(...texts(recordsOf(await reader.poll()))), seen.length >= 3 || undefined));
    expect(seen).toEqual(written);
    await behind.close();
    await proxy.close();
  });

  it('holds no more in a poll than its limit and one batch, and a record above the limit still comes', async () => {
    const topic = await newTopic(log);
    for (let n = 0; n < 40; n++) await writer.transact([record(topic, 0, `${n}`)]);
    await writer.transact([record(topic, 0, 'huge', 300_000), record(topic, 0, 'behind it')]);
    await committedRecords(log, topic);
    const { reader, close } = smallReader(4 * RECORD_BYTES);
    reader.seek(topic, 0, 0);
    const polls: FetchedBatch[][] = [];
    while (namesOf(polls.flat()).at(-1) !== 'behind it') polls.push([...(await reader.poll())]);
    expect(namesOf(polls.flat())).toEqual([...Array.from({ length: 40 }, (_, n) => `${n}`), 'huge', 'behind it']);
    const sizes = polls.map((batches) => recordsOf(batches).reduce((sum, { value }) => sum + value!.length, 0));
    for (const size of sizes.slice(0, -1)) expect(size).toBeLessThanOrEqual(5 * RECORD_BYTES);
    await close();
  });

  it('holds no more in a poll than its limit and one batch when they unpack to a hundred times their size', async () => {
    const topic = await newTopic(log, 2);
    const packed = testLog({ compression: 'zstd' });
    const packing = packed.writer({ transactionalId: unique('writer') });
    await packing.fence();
    for (let n = 0; n < 20; n++) {
      for (const partition of [0, 1]) await packing.transact([record(topic, partition, `${n}`, 50_000)]);
    }
    await packed.close();
    await committedRecords(log, topic);
    const { reader, close } = smallReader(100_000);
    for (const partition of [0, 1]) reader.seek(topic, partition, 0);
    const polls: FetchedBatch[][] = [];
    while (recordsOf(polls.flat()).length < 40) polls.push([...(await reader.poll())]);
    for (const partition of [0, 1]) {
      const names = namesOf(polls.flat().filter((of) => of.partition === partition));
      expect(names).toEqual(Array.from({ length: 20 }, (_, n) => `${n}`));
    }
    for (const batches of polls) {
      expect(recordsOf(batches).reduce((sum, { value }) => sum + value!.length, 0)).toBeLessThanOrEqual(150_000);
    }
    await close();
  });

  it('brings what a partition with little has while another has a long backlog', async () => {
    const topic = await newTopic(log, 4);
    for (let n = 0; n < 60; n++) await writer.transact([record(topic, 0, `${n}`)]);
    await writer.transact([1, 2, 3].map((partition) => record(topic, partition, 'little')));
    await committedRecords(log, topic);
    const { reader, close } = smallReader(8 * RECORD_BYTES);
    for (const partition of [0, 1, 2, 3]) reader.seek(topic, partition, 0);
    const seen: FetchedBatch[] = [];
    while (new Set(seen.filter((of) => of.records.length > 0).map((of) => of.partition)).size < 4)
      seen.push(...(await reader.poll()));
    expect(recordsOf(seen.filter((of) => of.partition === 0)).length).toBeLessThan(20);
    await close();
  });

  it('S107 reads empty and huge headers, null header values and odd times as the broker keeps them', async () => {
    const topic = await newTopic(log, 1, { 'message.timestamp.after.max.ms': '9223372036854775807' });
    const headers: [string, Buffer | null][] = [
      ['', Buffer.alloc(0)],
      ['null', null],
      ['huge', Buffer.alloc(500_000, 1)],
      ...Array.from({ length: 1_000 }, (_, n): [string, Buffer] => [`h${n}`, Buffer.from(`${n}`)]),
    ];
    const records: OutRecord[] = [
      { topic, partition: 0, key: null, value: null },
      { topic, partition: 0, key: Buffer.alloc(0), value: Buffer.alloc(0), headers, timestamp: 0 },
      { topic, partition: 0, key: null, value: null, timestamp: -5 },
      {
        topic,
        partition: 0,
        key: Buffer.from('k'),
        value: null,
        timestamp: 253_402_300_799_999,
        headers: [['n', null]],
      },
    ];
    for (const one of records) expect(await writer.transact([one])).toMatchObject({ outcome: 'committed' });
    const read = await committedRecords(log, topic);
    // As texts: Jest compares long buffers byte by byte.
    const told = ({ key, value, headers: of = [] }: Pick<OutRecord, 'key' | 'value' | 'headers'>) => ({
      key,
      value,
      headers: of.map(([name, bytes]) => [name, bytes?.toString('latin1')]),
    });
    expect(read.map(told)).toEqual(records.map(told));
    expect(read.slice(1).map(({ timestamp }) => timestamp)).toEqual([0, -5, 253_402_300_799_999]);
  });

  const record = (topic: string, partition: number, name: string, bytes = RECORD_BYTES): OutRecord => ({
    topic,
    partition,
    key: null,
    value: Buffer.from(name.padEnd(bytes, ' ')),
  });

  function namesOf(batches: readonly FetchedBatch[]): string[] {
    return texts(recordsOf(batches)).map((value) => value!.trimEnd());
  }
});
