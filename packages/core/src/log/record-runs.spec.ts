import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import type { OutRecord } from './log.js';
import { partitionOf } from './partitioner.js';
import { decodeRun } from './record-run.js';
import type { RecordRun } from './record-run.js';
import { RecordRuns } from './record-runs.js';

const NOW = 1_700_000_000_000;

function randomRecord(random: (below: number) => number, topic: string, n: number): OutRecord {
  const bytes = (below: number) => Buffer.alloc(random(below), n);
  return {
    topic,
    key: Buffer.from(`${random(40)}`),
    value: random(5) === 0 ? null : bytes(random(20) === 0 ? 30_000 : 300),
    headers: Array.from({ length: random(3) }, (_, i) => [`é${i}`, random(4) === 0 ? null : bytes(90)] as const),
  };
}

const texts = (records: readonly OutRecord[]) =>
  records.map(({ key, value, headers }) => ({
    key: key?.toString(),
    value: value?.toString('hex'),
    headers: headers?.map(([name, bytes]) => [name, bytes?.toString('hex')]),
  }));

describe('RecordRuns', () => {
  it('hands out what was added, whole units, in order per partition, whatever is cut, split and used again', () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seededRandom(seed).below;
    const runs = new RecordRuns();
    const partitions = { a: 3, b: 1 };
    const topics = { a: runs.openTopic('a', 3, 5_000), b: runs.openTopic('b', 1) };
    const added = new Map<string, OutRecord[]>();
    const taken = new Map<string, OutRecord[]>();
    let complete = 0;
    let records = 0;
    const drain = (what: 'complete' | 'everything') => {
      const out = runs.take(what, NOW);
      for (const run of out) {
        const place = `${run.topic}/${run.partition}`;
        // Copied as the log would: its bytes are used again.
        const copy: RecordRun = { ...run, bytes: Buffer.from(run.bytes) };
        expect(run.count > 0 && (run.count === 1 || run.topic === 'b' || run.bytes.length <= 5_000)).toBe(true);
        taken.set(place, [...(taken.get(place) ?? []), ...decodeRun(copy)]);
      }
      runs.release(out);
    };
    try {
      for (let n = 0; n < 20_000; n++) {
        const topic = random(3) === 0 ? 'b' : 'a';
        const record = randomRecord(random, topic, n);
        const partition = partitionOf(record.key!, partitions[topic]);
        // The key of `put` may lie in something longer.
        const key = Buffer.concat([record.key!, Buffer.from('rest')]);
        if (record.headers!.length > 0) topics[topic].add(record);
        else topics[topic].put(partition, key, record.key!.length, record.value);
        records += 1;
        const place = `${topic}/${partition}`;
        added.set(place, [...(added.get(place) ?? []), record]);
        if (random(7) === 0) {
          runs.complete();
          complete = records;
        }
        if (random(150) === 0) {
          drain('complete');
          const count = [...taken.values()].reduce((sum, of) => sum + of.length, 0);
          expect(count).toBe(complete);
          expect(runs.records).toBe(records - complete);
        }
      }
      drain('everything');
      expect([runs.bytes, runs.records]).toEqual([0, 0]);
      for (const [place, expected] of added) expect(texts(taken.get(place)!)).toEqual(texts(expected));
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  });

  it('leaves in order, once and in its unit what a guard lets in, and nothing of what it keeps out', () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seededRandom(seed).below;
    const runs = new RecordRuns();
    const aside = runs.openTopic('aside', 1);
    const [kept, looked] = [new Set<number>(), new Set<number>()];
    let all = false;
    const numberOf = ({ headers }: OutRecord) => Number(headers![0]![1]!.toString());
    const guarded = runs.openTopic('a', 3, 5_000, {
      get all() {
        return all;
      },
      maxRecordBytes: 20_000,
      keepsOut(record) {
        const n = numberOf(record);
        looked.add(n);
        if (record.value === null || (random(3) > 0 && record.value.length < 20_000)) return false;
        kept.add(n);
        aside.add({ ...record, topic: 'aside', partition: 0 });
        return true;
      },
    });
    const added = new Map<number, { readonly record: OutRecord; readonly unit: number; readonly all: boolean }>();
    const taken: OutRecord[] = [];
    let [unit, whole] = [0, 0];
    try {
      for (let n = 0; n < 6_000; n++) {
        const record = { ...randomRecord(random, 'a', n), headers: [['n', Buffer.from(String(n))] as const] };
        added.set(n, { record, unit, all });
        guarded.add(record);
        if (random(50) === 0) {
          all = !all;
          guarded.watch();
        }
        if (random(7) === 0) {
          runs.complete();
          unit += 1;
        }
        if (random(150) === 0) {
          const out = runs.take('complete', NOW);
          whole = unit;
          taken.push(...out.map((run) => ({ ...run, bytes: Buffer.from(run.bytes) })).flatMap(decodeRun));
          runs.release(out);
          const due = [...added.values()].filter((of) => of.unit < whole);
          expect(taken).toHaveLength(due.length);
          expect(runs.records).toBe(added.size - due.length);
        }
      }
      taken.push(...runs.take('everything', NOW).flatMap(decodeRun));
      expect([runs.bytes, runs.records, kept.size > 300]).toEqual([0, 0, true]);
      for (const [n, of] of added) expect(looked.has(n)).toBe(of.all || (of.record.value?.length ?? 0) > 20_000);
      const places = { aside: (n: number) => kept.has(n), a: (n: number) => !kept.has(n) };
      for (const [topic, belongs] of Object.entries(places))
        for (const partition of [0, 1, 2]) {
          const found = taken.filter((of) => of.topic === topic && of.partition === partition);
          const wanted = [...added].filter(
            ([n, { record }]) => belongs(n) && partition === (topic === 'a' ? partitionOf(record.key!, 3) : 0),
          );
          expect(texts(found)).toEqual(texts(wanted.map(([, { record }]) => record)));
        }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  });

  it('begins a record anew that was not ended', () => {
    const runs = new RecordRuns();
    const topic = runs.openTopic('t', 1);
    const key = Buffer.from('k');
    topic.runFor(key, 0, 1).begin(key, 0, 1, 100, 1_000);
    topic.add({ topic: 't', key, value: Buffer.from('v') });
    expect(texts(runs.take('everything', NOW).flatMap(decodeRun))).toEqual([{ key: 'k', value: '76', headers: [] }]);
  });

  it('refuses bytes that are not a run', () => {
    const runs = new RecordRuns();
    const topic = runs.openTopic('t', 1);
    topic.add({ topic: 't', key: Buffer.from('k'), value: Buffer.from('v'), headers: [['h', Buffer.from('x')]] });
    const [run] = runs.take('everything', NOW);
    for (let end = 1; end < run!.bytes.length; end++)
      expect(() => decodeRun({ ...run!, bytes: run!.bytes.subarray(0, end) })).toThrow(RangeError);
    expect(() => decodeRun({ ...run!, count: 2 })).toThrow('1 records instead of 2');
  });
});
