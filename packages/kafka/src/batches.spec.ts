import { describe, expect, it } from '@jest/globals';
import {
  BATCH_HEADER_BYTES,
  RecordRuns,
  recordBytesAtMost,
  type Batch,
  type KnownLimits,
  type LogInput,
  type OutRecord,
} from '@headwater/core';
import { batchesOf, recut } from './batches.js';

const record = (text: string, bytes: number, partition = 0): OutRecord => ({
  topic: 't',
  partition,
  key: null,
  value: Buffer.from(text.padEnd(bytes, '.')),
});
const SIZE = recordBytesAtMost(record('', 100));
const limited = (limit?: number): KnownLimits => ({ of: () => limit });
const cut = (inputs: readonly LogInput[], limits: KnownLimits) =>
  batchesOf(inputs, ({ partition }) => partition ?? 0, limits);
const told = ({ partition, run, records }: Batch) =>
  `${partition}: ${run !== undefined ? `run of ${run.count}` : records.map((of) => /^\w*/.exec(of.value!.toString())![0]).join(' ')}`;

function runOf(names: readonly string[], bytes: number, partition = 0) {
  const runs = new RecordRuns();
  const topic = runs.openTopic('t', partition + 1);
  for (const name of names) topic.add({ ...record(name, bytes, partition), key: Buffer.from(name) });
  return runs.take('everything', 1_700_000_000_000)[0]!;
}

describe('batches', () => {
  it('fills each to the limit and not above', async () => {
    const inputs = ['a', 'b', 'c', 'd', 'e'].map((text) => record(text, 100));
    const limit = BATCH_HEADER_BYTES + 2 * SIZE;
    const batchs = await cut(inputs, limited(limit));
    expect(batchs.map(told)).toEqual(['0: a b', '0: c d', '0: e']);
    expect(batchs.map(({ sizeAtMost }) => sizeAtMost)).toEqual([limit, limit, limit - SIZE]);
    expect((await cut(inputs, limited(limit - 1))).map(told)).toEqual(['0: a', '0: b', '0: c', '0: d', '0: e']);
    expect((await cut(inputs, limited())).map(told)).toEqual(['0: a b c d e']);
  });

  it('gives a record above the limit a batch of its own, in its place', async () => {
    const inputs = [
      record('a', 100),
      record('large', 900),
      record('b', 100),
      record('other', 100, 1),
      record('c', 100),
    ];
    const batchs = await cut(inputs, limited(500));
    expect(batchs.map(told)).toEqual(['0: a', '0: large', '0: b c', '1: other']);
  });

  it('takes a run apart that is above the limit, in its place among records and runs', async () => {
    const inputs = [
      record('before', 100),
      runOf(['a', 'b', 'c'], 100),
      record('between', 100),
      runOf(['fits'], 100),
      runOf(['p', 'q'], 100, 1),
      record('after', 100),
    ];
    expect((await cut(inputs, limited(2 * SIZE + BATCH_HEADER_BYTES + 10))).map(told)).toEqual([
      '0: before a',
      '0: b c',
      '0: between',
      '0: run of 1',
      '1: run of 2',
      '0: after',
    ]);
    expect((await cut(inputs, limited())).map(told)).toEqual([
      '0: before',
      '0: run of 3',
      '0: between',
      '0: run of 1',
      '1: run of 2',
      '0: after',
    ]);
  });

  it('leaves key, value, headers and time of a record as they were in the run', async () => {
    const runs = new RecordRuns();
    const headers = [['hw_op', Buffer.from('c')]] as const;
    const topic = runs.openTopic('t', 1);
    topic.add({ topic: 't', key: Buffer.from('k'), value: null, headers });
    topic.add({ topic: 't', key: Buffer.from('k'), value: Buffer.from('v') });
    const batchs = await cut(runs.take('everything', 1_700_000_000_000), limited(50));
    const all = { topic: 't', partition: 0, key: Buffer.from('k'), timestamp: 1_700_000_000_000 };
    expect(batchs.flatMap(({ records }) => records)).toEqual([
      { ...all, value: null, headers },
      { ...all, value: Buffer.from('v'), headers: [] },
    ]);
  });

  it('leaves a run of one record as it is, whatever the limit', async () => {
    expect((await cut([runOf(['large'], 5_000)], limited(1_000))).map(told)).toEqual(['0: run of 1']);
  });

  it('names the record of a run that no request holds', async () => {
    const run = runOf(['large'], 8_100_000);
    await expect(cut([run], limited())).rejects.toMatchObject({
      code: 'RECORD_TOO_LARGE',
      facts: { topic: 't', partition: 0, key: 'large' },
    });
  });

  it('cuts a batch anew in its order, for the partition it was for', async () => {
    const [batch] = await batchesOf(
      ['a', 'b', 'c'].map((text) => ({ ...record(text, 100), partition: undefined })),
      () => 3,
      limited(),
    );
    expect(told(batch!)).toBe('3: a b c');
    expect(recut(batch!, limited(BATCH_HEADER_BYTES + 2 * SIZE)).map(told)).toEqual(['3: a b', '3: c']);
  });
});
