import { expect, it } from '@jest/globals';
import { partitionOf, RecordRuns, type LogInput, type LogWriter, type Outcome } from '@headwater/core';
import { uniqueName } from '../unique-name.js';
import { keyed, one, texts, type Bench } from './log-under-test.js';

export function writerCases(bench: Bench): void {
  it('S108 writes keys, values, tombstones, headers and timestamps as given', async () => {
    const topic = await bench.topic(1, { 'retention.ms': '-1' });
    const writer = await bench.writer();
    const headers = [
      ['é', Buffer.from('1')],
      ['n', null],
    ] as const;
    const outcome = await writer.transact([
      { topic, key: Buffer.from('k'), value: Buffer.from('v'), headers, timestamp: 1_700_000_000_000 },
      { topic, partition: 0, key: null, value: null, timestamp: 1_600_000_000_000 },
    ]);
    expect(outcome).toMatchObject({ outcome: 'committed' });
    expect(await bench.committed(topic)).toEqual([
      {
        topic,
        partition: 0,
        offset: 0,
        timestamp: 1_700_000_000_000,
        key: Buffer.from('k'),
        value: Buffer.from('v'),
        headers,
      },
      { topic, partition: 0, offset: 1, timestamp: 1_600_000_000_000, key: null, value: null, headers: [] },
    ]);
  });

  it('S108 writes runs as their records, in the order given among records and runs, until the bytes are used again', async () => {
    const topic = await bench.topic(2, { 'retention.ms': '-1' });
    const other = await bench.topic();
    const writer = await bench.writer();
    const runs = new RecordRuns();
    const ofTopic = runs.openTopic(topic, 2, 1_000);
    const headers = [['hw_op', Buffer.from('c')]] as const;
    const expected: string[][] = [[], []];
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 200; n++) {
        const key = Buffer.from(`${n % 20}`);
        ofTopic.add({ topic, key, value: n % 7 === 0 ? null : Buffer.from(`${round} ${n}`), headers });
        expected[partitionOf(key, 2)]!.push(n % 7 === 0 ? 'null' : `${round} ${n}`);
      }
      const taken = runs.take('everything', 1_700_000_000_000);
      expect(taken.length).toBeGreaterThan(4);
      const before = { topic, partition: 1, key: null, value: Buffer.from(`before ${round}`) };
      const after = { ...before, value: Buffer.from(`after ${round}`) };
      expected[1]!.splice(
        expected[1]!.length - taken.reduce((sum, run) => sum + run.partition * run.count, 0),
        0,
        `before ${round}`,
      );
      expected[1]!.push(`after ${round}`);
      const outcome = await writer.transact([before, ...taken, after, ...one(other, 'position')]);
      expect(outcome).toMatchObject({ outcome: 'committed' });
      runs.release(taken);
      for (const { buffer } of taken) buffer.fill(0xff);
    }
    const records = await bench.committed(topic);
    const texts = (partition: number) =>
      records.filter((of) => of.partition === partition).map(({ value }) => `${value?.toString() ?? null}`);
    expect([texts(0), texts(1)]).toEqual(expected);
    const inRun = records.filter(({ key }) => key !== null);
    expect(inRun.every((of) => of.timestamp === 1_700_000_000_000 && of.headers[0]?.[1]?.toString() === 'c')).toBe(
      true,
    );
    expect(await bench.texts(other)).toEqual(['position', 'position', 'position']);
  });

  it('S108 names the record of a run that is above the limit, and shows nothing of its transaction', async () => {
    const topic = await bench.topic(1, { 'max.message.bytes': '2000' });
    const writer = await bench.writer();
    // Alone from the start; then with others, which the topic's limit first takes apart.
    for (const bytes of [1_100_000, 5_000]) {
      const runs = new RecordRuns();
      const ofTopic = runs.openTopic(topic, 1);
      for (const [key, size] of [
        ['small', 5],
        ['large', bytes],
        ['next', 5],
      ] as const)
        ofTopic.add({ topic, key: Buffer.from(key), value: Buffer.alloc(size) });
      const taken = runs.take('everything', Date.now());
      if (bytes === 5_000) await expectCut(writer, taken);
      const outcome = await writer.transact(taken);
      expect(outcome).toMatchObject({ outcome: 'aborted', cause: { code: 'RECORD_TOO_LARGE', facts: { topic } } });
      expect(outcome).toMatchObject({ cause: { facts: { key: 'large' } } });
    }
    expect(await writer.transact(one(topic, 'next'))).toMatchObject({ outcome: 'committed' });
    expect(await bench.texts(topic)).toEqual(['next']);
  });

  it('S108 streams many appends through one transaction, in order, unseen before the commit', async () => {
    const topic = await bench.topic(3);
    const writer = await bench.writer();
    const transaction = writer.begin();
    for (let batch = 0; batch < 5; batch++)
      await transaction.append(Array.from({ length: 100 }, (_, n) => keyed(topic, `${batch * 100 + n}`)));
    await transaction.append([]);
    expect((await bench.log.admin.offsets(topic)).map(({ lastStable }) => lastStable)).toEqual([0, 0, 0]);
    expect(await transaction.commit()).toMatchObject({ outcome: 'committed' });
    const records = await bench.committed(topic);
    expect(records).toHaveLength(500);
    for (let partition = 0; partition < 3; partition++) {
      const numbers = records.filter((of) => of.partition === partition).map(({ value }) => Number(value));
      expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    }
  });

  it('S108 keeps the order of appends that were not awaited', async () => {
    const topic = await bench.topic();
    const transaction = (await bench.writer()).begin();
    const appends = Array.from({ length: 20 }, (_, n) => transaction.append(one(topic, `${n}`)));
    expect(await transaction.commit()).toMatchObject({ outcome: 'committed' });
    await Promise.all(appends);
    expect(await bench.texts(topic)).toEqual(Array.from({ length: 20 }, (_, n) => `${n}`));
  });

  it("S108 puts a key into Kafka's default partition, and what names its partition there", async () => {
    const topic = await bench.topic(7);
    const keys = ['', 'a', 'längere Schlüssel', '42', 'x'.repeat(50)];
    await (
      await bench.writer()
    ).transact([
      ...keys.map((key) => keyed(topic, key)),
      { topic, partition: 6, key: Buffer.from('a'), value: Buffer.from('named') },
    ]);
    const found = (await bench.committed(topic)).map(({ partition, value }) => `${value!.toString()} in ${partition}`);
    const expected = keys.map((key) => `${key} in ${partitionOf(Buffer.from(key), 7)}`);
    expect(found.sort()).toEqual([...expected, 'named in 6'].sort());
  });

  it('S108 takes one offset for the marker of a transaction on each of its partitions', async () => {
    const topic = await bench.topic(2);
    const writer = await bench.writer();
    await writer.transact([...one(topic, 'a'), { topic, partition: 1, key: null, value: null }]);
    // A marker may be written after the next transaction's records: each is waited for.
    await bench.committed(topic);
    const transaction = writer.begin();
    await transaction.append(one(topic, 'b'));
    await transaction.abort();
    await bench.committed(topic);
    await writer.transact(one(topic, 'c'));
    expect((await bench.committed(topic)).map(({ partition, offset }) => [partition, offset])).toEqual([
      [0, 0],
      [0, 4],
      [1, 0],
    ]);
    const offsets = await bench.log.admin.offsets(topic);
    expect(offsets.map(({ lastStable, high }) => [lastStable, high])).toEqual([
      [6, 6],
      [2, 2],
    ]);
  });

  it('S108 tells where a commit stands on each partition it wrote, its markers not counted', async () => {
    const topic = await bench.topic(3);
    const writer = await bench.writer();
    const transaction = writer.begin();
    await transaction.append([...one(topic, 'a'), ...one(topic, 'b')]);
    await transaction.append([...one(topic, 'c'), { topic, partition: 2, key: null, value: null }]);
    const first = await transaction.commit();
    await bench.committed(topic); // its markers too
    const second = await writer.transact(one(topic, 'd'));
    const standing = (end: Outcome) =>
      end.outcome === 'committed' ? end.appended.map(({ partition, next }) => `${partition} to ${next}`).sort() : end;
    expect([standing(first), standing(second), standing(await writer.transact([]))]).toEqual([
      ['0 to 3', '2 to 1'],
      ['0 to 5'],
      [],
    ]);
  });

  it('S108 refuses a record above the limit by name, shows nothing of its transaction, and goes on', async () => {
    const topic = await bench.topic(1, { 'max.message.bytes': '2000' });
    const writer = await bench.writer();
    for (const bytes of [1_100_000, 5_000]) {
      const records = [...one(topic, 'small'), ...one(topic, 'x'.repeat(bytes), Buffer.from('large'))];
      if (bytes === 5_000) await expectCut(writer, records);
      const outcome = await writer.transact(records);
      expect(outcome).toMatchObject({
        outcome: 'aborted',
        cause: { code: 'RECORD_TOO_LARGE', retryable: false, facts: { topic, key: 'large' } },
      });
      expect(outcome).not.toHaveProperty('fenced');
    }
    expect(await writer.transact(one(topic, 'next'))).toMatchObject({ outcome: 'committed' });
    expect(await bench.texts(topic)).toEqual(['next']);
  });

  it('S108 cuts its batches to what the topic takes when one was refused, and keeps the order of records and runs', async () => {
    const topic = await bench.topic(2, { 'max.message.bytes': '10000' });
    const other = await bench.topic();
    // A client of its own: what one writer learns, all of its client know.
    const log = await bench.another();
    const writer = await bench.writer({}, log);
    const runs = new RecordRuns();
    const ofTopic = runs.openTopic(topic, 1);
    const text = (name: string) => name.padEnd(500, '.');
    const named = (of: string) => Array.from({ length: 200 }, (_, n) => text(`${of} ${n}`));
    for (const value of named('run')) ofTopic.add({ topic, key: Buffer.from('k'), value: Buffer.from(value) });
    const records = named('record').flatMap((value) => one(topic, value));
    const inputs = [
      ...records,
      ...runs.take('everything', Date.now()),
      ...one(topic, text('last')),
      ...one(other, 'o'),
    ];
    await expectCut(writer, inputs);
    expect(await writer.transact(inputs)).toMatchObject({ outcome: 'committed' });
    expect(await bench.texts(topic)).toEqual([...named('record'), ...named('run'), text('last')]);
    expect(await bench.texts(other)).toEqual(['o']);
    const second = await bench.writer({}, log);
    expect(await second.transact(records)).toMatchObject({ outcome: 'committed' });
    const large = await second.transact([...one(topic, 'small'), ...one(topic, 'x'.repeat(20_000))]);
    expect(large).toMatchObject({ outcome: 'aborted', cause: { code: 'RECORD_TOO_LARGE', retryable: false } });
    expect(await bench.texts(topic)).toHaveLength(601);
  });

  it('S108 fills batches to the last byte that the topic takes', async () => {
    const topic = await bench.topic(1, { 'max.message.bytes': '2000' });
    const writer = await bench.writer();
    // 61 bytes of header; 7 of each record and 2 of a value's length behind 63 bytes.
    const fitting = [...one(topic, 'x'.repeat(961)), ...one(topic, 'x'.repeat(960))];
    expect(await writer.transact(fitting)).toMatchObject({ outcome: 'committed' });
    await expectCut(writer, [...fitting, ...one(topic, '')]);
    expect(await writer.transact([...fitting, ...one(topic, '')])).toMatchObject({ outcome: 'committed' });
  });

  it('S108 sends plain records in batches that the topic takes', async () => {
    const topic = await bench.topic(1, { 'max.message.bytes': '10000' });
    const producer = (await bench.another()).producer();
    const texts = Array.from({ length: 200 }, (_, n) => `${n}`.padEnd(500, '.'));
    const sends = [texts.slice(0, 150), texts.slice(150, 151), texts.slice(151)];
    const ends = await Promise.all(sends.map((of) => producer.send(of.flatMap((text) => one(topic, text)))));
    expect(ends.flat()).toEqual([150, 151, 200].map((next) => ({ topic, partition: 0, next })));
    expect(await bench.texts(topic)).toEqual(texts);
    await producer.close();
  });

  it('S108 refuses a record without a key for a compacted topic by name, shows nothing of its transaction, and goes on', async () => {
    const topic = uniqueName('suite');
    await bench.log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact' }]);
    const writer = await bench.writer();
    const keyless = [...one(topic, 'before', Buffer.from('k')), ...one(topic, 'keyless')];
    const outcome = await writer.transact(keyless);
    expect(outcome).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'RECORD_INVALID', retryable: false, facts: { topic, partition: 0, key: null } },
    });
    expect(outcome).not.toHaveProperty('fenced');
    expect(await writer.transact(one(topic, 'next', Buffer.from('k')))).toMatchObject({ outcome: 'committed' });
    expect(await bench.texts(topic)).toEqual(['next']);
  });

  it('S108 dooms a transaction whose append failed', async () => {
    const topic = await bench.topic();
    const writer = await bench.writer();
    const transaction = writer.begin();
    await transaction.append(one(topic, 'before'));
    const failing = transaction.append([{ topic, partition: 0, key: null, value: Buffer.alloc(1_100_000) }]);
    await expect(failing).rejects.toMatchObject({ code: 'RECORD_TOO_LARGE' });
    await expect(transaction.append(one(topic, 'after'))).rejects.toMatchObject({ code: 'RECORD_TOO_LARGE' });
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', cause: { code: 'RECORD_TOO_LARGE' } });
    expect(await bench.texts(topic)).toEqual([]);
  });

  it('S108 names a topic or partition that does not exist, and a record without key and partition', async () => {
    const topic = await bench.topic();
    const writer = await bench.writer({ transactionTimeoutMs: 1_000 });
    const missing = uniqueName('missing');
    expect(await writer.transact([keyed(missing, 'x')])).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_TOPIC_MISSING', facts: { topic: missing } },
    });
    expect(await writer.transact(one(missing, 'x'))).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_TOPIC_MISSING', facts: { topic: missing } },
    });
    expect(await writer.transact([{ ...keyed(topic, 'x'), partition: 9 }])).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_PARTITION_MISSING', facts: { topic, partition: 9 } },
    });
    expect(await writer.transact([{ topic, key: null, value: null }])).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_PARTITION_MISSING', facts: { topic } },
    });
    expect(await writer.transact(one(topic, 'next'))).toMatchObject({ outcome: 'committed' });
  });

  it('S108 commits a transaction without records, and ends each one once', async () => {
    const topic = await bench.topic();
    const writer = await bench.writer();
    expect(await writer.begin().commit()).toMatchObject({ outcome: 'committed' });
    expect(await writer.transact([])).toMatchObject({ outcome: 'committed' });
    const transaction = writer.begin();
    expect(await writer.transact(one(topic, 'beside'))).toMatchObject({
      outcome: 'aborted',
      cause: { code: 'LOG_WRITER_BUSY' },
    });
    await transaction.append(one(topic, 'x'));
    expect(await transaction.commit()).toMatchObject({ outcome: 'committed' });
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', cause: { code: 'LOG_TRANSACTION_OVER' } });
    expect(await transaction.abort()).toMatchObject({ outcome: 'aborted', cause: { code: 'LOG_TRANSACTION_OVER' } });
    await expect(transaction.append(one(topic, 'y'))).rejects.toMatchObject({ code: 'LOG_TRANSACTION_OVER' });
    expect(await bench.texts(topic)).toEqual(['x']);
  });

  it('S108 aborts on request and is ready at once', async () => {
    const topic = await bench.topic();
    const writer = await bench.writer();
    for (let n = 0; n < 3; n++) {
      const transaction = writer.begin();
      await transaction.append(one(topic, `aborted ${n}`));
      expect(await transaction.abort('changed my mind')).toEqual({ outcome: 'aborted', cause: 'changed my mind' });
      expect(await writer.transact(one(topic, `committed ${n}`))).toMatchObject({ outcome: 'committed' });
    }
    expect(await writer.begin().abort()).toMatchObject({ cause: { code: 'LOG_TRANSACTION_ABORTED' } });
    expect(texts(await bench.committed(topic))).toEqual(['committed 0', 'committed 1', 'committed 2']);
  });

  it('S108 sends plain records in the order of the calls, each once, and tells where they stand', async () => {
    const topic = await bench.topic(3);
    const producer = bench.log.producer();
    const texts = Array.from({ length: 50 }, (_, n) => `${n}`);
    const sends = texts.map((text) => producer.send([{ topic, key: Buffer.from('k'), value: Buffer.from(text) }]));
    const ends = (await Promise.all(sends)).flat();
    const partition = partitionOf(Buffer.from('k'), 3);
    expect(await bench.texts(topic)).toEqual(texts);
    expect(ends.every((of) => of.topic === topic && of.partition === partition)).toBe(true);
    expect(ends.at(-1)!.next).toBe(50);
    await producer.close();
  });

  it('S108 runs transactions back to back over two topics and loses none', async () => {
    const [left, right] = [await bench.topic(), await bench.topic()];
    const writer = await bench.writer();
    for (let n = 0; n < 100; n++)
      expect(await writer.transact([...one(left, `${n}`), ...one(right, `${n}`)])).toMatchObject({
        outcome: 'committed',
      });
    const expected = Array.from({ length: 100 }, (_, n) => `${n}`);
    expect([await bench.texts(left), await bench.texts(right)]).toEqual([expected, expected]);
  });
}

/** The first time a topic refuses a batch of several records, the repetition is cut to what it takes. */
async function expectCut(writer: LogWriter, inputs: readonly LogInput[]): Promise<void> {
  const outcome = await writer.transact(inputs);
  expect(outcome).toMatchObject({ outcome: 'aborted', cause: { code: 'LOG_BATCH_TOO_LARGE', retryable: true } });
  expect(outcome).not.toHaveProperty('fenced');
}
