import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Log, OutRecord } from '@headwater/core';
import { faultProxy, type FaultProxy } from '@headwater/testing';
import { committedRecords, newTopic, testBrokers, testLog, texts, unique } from './broker.testing.js';

describe('producer', () => {
  let log: Log;
  let proxy: FaultProxy;
  let proxied: Log;
  beforeAll(async () => {
    log = testLog();
    const [host = '', port = ''] = testBrokers()[0]!.split(':');
    proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    const way = { host: proxy.host, port: proxy.port };
    proxied = testLog({ connect: () => way, requestTimeoutMs: 1_000 });
  });
  afterEach(() => {
    proxy.decide = () => undefined;
  });
  afterAll(async () => {
    await proxied.close();
    await proxy.close();
    await log.close();
  });

  const at = (topic: string, partition: number, value: string): OutRecord => ({
    topic,
    partition,
    key: null,
    value: Buffer.from(value),
  });

  /** Counts the Produce requests that pass. */
  function countProduce(): () => number {
    let count = 0;
    proxy.decide = ({ apiName }) => {
      if (apiName === 'Produce') count++;
      return undefined;
    };
    return () => count;
  }

  it('tells where each partition stands after the records of a send', async () => {
    const topic = await newTopic(log, 3);
    const producer = log.producer();
    expect(await producer.send([at(topic, 0, 'a'), at(topic, 2, 'b'), at(topic, 0, 'c')])).toEqual([
      { topic, partition: 0, next: 2 },
      { topic, partition: 2, next: 1 },
    ]);
    expect(await producer.send([at(topic, 0, 'd')])).toEqual([{ topic, partition: 0, next: 3 }]);
    expect(await producer.send([])).toEqual([]);
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'c', 'd', 'b']);
  });

  it('keeps the order of calls per partition and shares batches under load', async () => {
    const topic = await newTopic(log, 2);
    const producer = proxied.producer();
    await producer.send([at(topic, 0, 'warm'), at(topic, 1, 'warm')]);
    const produced = countProduce();
    const sends = Array.from({ length: 2_000 }, (_, n) => producer.send([at(topic, n % 2, `${n}`)]));
    const positions = await Promise.all(sends);
    expect(positions.map(([position]) => position!.next)).toEqual(sends.map((_, n) => 2 + Math.floor(n / 2)));
    expect(produced()).toBeLessThan(20);
    const values = texts(await committedRecords(log, topic)).filter((text) => text !== 'warm');
    expect(values).toEqual([
      ...Array.from({ length: 1_000 }, (_, n) => `${2 * n}`),
      ...Array.from({ length: 1_000 }, (_, n) => `${2 * n + 1}`),
    ]);
  });

  it('waits for company as long as lingerMs says', async () => {
    const topic = await newTopic(log);
    const producer = proxied.producer({ lingerMs: 200 });
    await producer.send([at(topic, 0, 'warm')]);
    const produced = countProduce();
    const first = producer.send([at(topic, 0, 'a')]);
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    await Promise.all([first, producer.send([at(topic, 0, 'b')])]);
    expect(produced()).toBe(1);
    // Closing waits for nobody's company.
    const last = producer.send([at(topic, 0, 'c')]);
    await producer.close();
    expect(await last).toEqual([{ topic, partition: 0, next: 4 }]);
    expect(texts(await committedRecords(log, topic))).toEqual(['warm', 'a', 'b', 'c']);
  });

  for (const act of ['drop', 'close'] as const) {
    for (const side of ['request', 'response'] as const) {
      it(`S63 loses and doubles none of 100 concurrent sends when a Produce ${side} meets ${act}`, async () => {
        const topic = await newTopic(log, 2);
        const producer = proxied.producer();
        // It knows the topic: what is sent first would wait for that, and all would go at once.
        await producer.send([at(topic, 0, '-2'), at(topic, 1, '-1')]);
        let seen = 0;
        proxy.decide = ({ apiName }) => (apiName === 'Produce' && seen++ === 1 ? { at: side, act } : undefined);
        const sends: Promise<unknown>[] = [];
        // In waves, so that some are under way while others come.
        for (let wave = 0; wave < 10; wave++) {
          for (let n = 0; n < 10; n++) sends.push(producer.send([at(topic, n % 2, `${wave}${n}`)]));
          await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all(sends);
        expect(seen).toBeGreaterThan(1);
        const values = texts(await committedRecords(log, topic)).map(Number);
        const expected = [-2, -1, ...Array.from({ length: 100 }, (_, n) => n)];
        expect(values).toEqual([...expected.filter((n) => n % 2 === 0), ...expected.filter((n) => n % 2 !== 0)]);
      });
    }
  }

  it('tells as unknown what no answer came for, and goes on under a new id', async () => {
    const topic = await newTopic(log, 2);
    const producer = proxied.producer({ timeoutMs: 500 });
    await producer.send([at(topic, 0, 'a'), at(topic, 1, 'a')]);
    proxy.decide = ({ apiName }) => (apiName === 'Produce' ? { at: 'response', act: 'close' } : undefined);
    await expect(producer.send([at(topic, 0, 'in doubt')])).rejects.toMatchObject({
      code: 'LOG_SEND_FAILED',
      retryable: false,
      facts: { unknown: [{ topic, partition: 0 }], refused: [] },
    });
    proxy.decide = () => undefined;
    await producer.send([at(topic, 0, 'b'), at(topic, 1, 'b')]);
    // Its answer was lost, not itself; once, although it was sent many times.
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'in doubt', 'b', 'a', 'b']);
  });

  it('rejects what no request got through for when its time is over, and goes on', async () => {
    const topic = await newTopic(log);
    const producer = proxied.producer({ timeoutMs: 500 });
    await producer.send([at(topic, 0, 'a')]);
    proxy.decide = ({ apiName }) => (apiName === 'Produce' ? { at: 'request', act: 'close' } : undefined);
    const sends = [producer.send([at(topic, 0, 'x')]), producer.send([at(topic, 0, 'y')])];
    for (const end of await Promise.allSettled(sends))
      expect(end).toMatchObject({ status: 'rejected', reason: { code: 'LOG_SEND_FAILED' } });
    proxy.decide = () => undefined;
    await producer.send([at(topic, 0, 'b')]);
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b']);
  });

  it('names the partition that refuses and writes the others', async () => {
    const [topic, small] = [await newTopic(log), await newTopic(log, 1, { 'max.message.bytes': '1000' })];
    const producer = log.producer();
    const send = producer.send([at(topic, 0, 'a'), { ...at(small, 0, ''), value: Buffer.alloc(5_000) }]);
    await expect(send).rejects.toMatchObject({
      code: 'LOG_SEND_FAILED',
      cause: { code: 'RECORD_TOO_LARGE' },
      facts: { refused: [{ topic: small, partition: 0 }], unknown: [] },
    });
    expect(await producer.send([at(small, 0, 'fits')])).toEqual([{ topic: small, partition: 0, next: 1 }]);
    expect(texts(await committedRecords(log, topic))).toEqual(['a']);
  });

  it('tells a partition that took some batches of a send and refused another as unknown: sent again, those would double', async () => {
    const topic = await newTopic(log, 1, { 'max.message.bytes': '10000' });
    const producer = log.producer();
    const some = (name: string) => Array.from({ length: 30 }, (_, n) => at(topic, 0, `${name} ${n}`.padEnd(500, '.')));
    const large = { ...at(topic, 0, ''), value: Buffer.alloc(20_000) };
    await expect(producer.send([...some('before'), large, ...some('after')])).rejects.toMatchObject({
      code: 'LOG_SEND_FAILED',
      retryable: false,
      cause: { code: 'RECORD_TOO_LARGE' },
      facts: { unknown: [{ topic, partition: 0 }], refused: [] },
    });
    await producer.send([at(topic, 0, 'next')]);
    const found = texts(await committedRecords(log, topic)).map((text) => text!.replaceAll('.', ''));
    const names = (name: string) => some(name).map(({ value }) => value!.toString().replaceAll('.', ''));
    expect(found).toEqual([...names('before'), ...names('after'), 'next']);
  });

  it('tells a record that its topic refuses for good from a failure that passes', async () => {
    const topic = unique('topic');
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact' }]);
    const producer = log.producer();
    const keyless = { topic, partition: 0, key: null, value: Buffer.from('keyless') };
    await expect(producer.send([keyless])).rejects.toMatchObject({
      code: 'LOG_SEND_FAILED',
      retryable: false,
      cause: { code: 'RECORD_INVALID', message: expect.stringContaining('INVALID_RECORD (87): ') },
      facts: { unknown: [], refused: [{ topic, partition: 0 }] },
    });
    expect(await producer.send([{ ...keyless, key: Buffer.from('k') }])).toMatchObject([{ next: 1 }]);
  });

  it('refuses of the sends that went together the one that holds a bad record', async () => {
    const topic = unique('topic');
    await log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact' }]);
    const producer = log.producer();
    const keyed = (key: string) => [{ topic, partition: 0, key: Buffer.from(key), value: Buffer.from(key) }];
    const keyless = [...keyed('with it'), { topic, partition: 0, key: null, value: Buffer.from('keyless') }];
    const ends = await Promise.allSettled([keyed('a'), keyless, keyed('b'), keyed('c')].map((of) => producer.send(of)));
    expect(ends.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
    expect(ends[1]).toMatchObject({ reason: { cause: { code: 'RECORD_INVALID', facts: { key: null } } } });
    expect(texts(await committedRecords(log, topic))).toEqual(['a', 'b', 'c']);
  });

  it('ends within its time when the broker does not answer any more, and takes nothing after close', async () => {
    const topic = await newTopic(log);
    const producer = proxied.producer();
    await producer.send([at(topic, 0, 'a')]);
    proxy.decide = ({ apiName }) => (apiName === 'Produce' ? { at: 'request', act: 'drop' } : undefined);
    const open = producer.send([at(topic, 0, 'b')]);
    const [end] = await Promise.allSettled([open, producer.close(), producer.close()]);
    expect(end).toMatchObject({ status: 'rejected', reason: { code: 'LOG_SEND_FAILED' } });
    await expect(producer.send([at(topic, 0, 'c')])).rejects.toMatchObject({ code: 'LOG_CLOSED' });
  });

  it('refuses a send whole that names a missing topic or holds a record too large', async () => {
    const topic = await newTopic(log);
    const producer = log.producer({ timeoutMs: 500 });
    const missing = { ...at(unique('missing'), 0, 'x'), partition: undefined, key: Buffer.from('k') };
    await expect(producer.send([at(topic, 0, 'a'), missing])).rejects.toMatchObject({ code: 'LOG_TOPIC_MISSING' });
    const large = { ...at(topic, 0, ''), value: Buffer.alloc(8_100_000) };
    await expect(producer.send([at(topic, 0, 'a'), large])).rejects.toMatchObject({ code: 'RECORD_TOO_LARGE' });
    expect(texts(await committedRecords(log, topic))).toEqual([]);
  });
});
