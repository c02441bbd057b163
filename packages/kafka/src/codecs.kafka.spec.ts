import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { fileURLToPath } from 'node:url';
import type { Log, OutRecord } from '@headwater/core';
import { runJava } from '@headwater/testing';
import { committedRecords, newTopic, testBrokers, testLog, unique } from './broker.testing.js';
import type { Compression } from './codecs.js';
import { fetchedHeaders } from './wire.testing.js';

const CODECS = ['gzip', 'snappy', 'lz4', 'zstd'] as const satisfies readonly Compression[];
const NUMBERS = { gzip: 1, snappy: 2, lz4: 3, zstd: 4 } as const;
const PROGRAM = fileURLToPath(new URL('../java/Codecs.java', import.meta.url));
const COUNT = 2_000;

describe('compressed topics', () => {
  let log: Log;
  /** Per codec: the topic that Java has written, the topic that we have, and what Java read there. */
  const topics = new Map<Compression, { java: string; ours: string; readByJava: string[] }>();
  beforeAll(async () => {
    log = testLog();
    for (const codec of CODECS) {
      const ours = await newTopic(log);
      const packed = testLog({ compression: codec });
      const writer = packed.writer({ transactionalId: unique('writer') });
      await writer.fence();
      expect(await writer.transact(recordsFor(ours))).toMatchObject({ outcome: 'committed' });
      await packed.close();
      topics.set(codec, { ours, java: await newTopic(log), readByJava: [] });
    }
    const args = [...topics].flatMap(([codec, { java, ours }]) => [codec, java, ours]);
    for (const line of await runJava(PROGRAM, [testBrokers().join(','), String(COUNT), ...args])) {
      topics.get(line.split(' ')[0] as Compression)?.readByJava.push(line);
    }
  });
  afterAll(() => log.close());

  for (const codec of CODECS) {
    it(`S81 reads what a Java producer packed with ${codec}, and Java reads what is packed here`, async () => {
      const { java, ours, readByJava } = topics.get(codec)!;
      const read = await committedRecords(log, java);
      expect(read.map(({ key, value, headers }) => [key, value, headers].join())).toEqual(
        recordsFor(java).map(({ key, value, headers }) => [key, value, headers].join()),
      );
      expect(readByJava).toEqual(
        Array.from({ length: COUNT }, (_, n) => `${codec} ${n} key_${n} value_${n} header_${n}`),
      );
      for (const topic of [java, ours]) {
        const [first] = await fetchedHeaders(topic);
        expect(first).toEqual({ codec: NUMBERS[codec], records: expect.any(Number) });
        expect(first!.records).toBeGreaterThan(1);
      }
    });
  }
});

function recordsFor(topic: string): OutRecord[] {
  return Array.from({ length: COUNT }, (_, n) => ({
    topic,
    partition: 0,
    key: Buffer.from(`key ${n}`),
    value: Buffer.from(`value ${n}`),
    headers: [['h', Buffer.from(`header ${n}`)]],
  }));
}
