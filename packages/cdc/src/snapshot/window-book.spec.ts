import { describe, expect, it } from '@jest/globals';
import { later, parseTxSnapshot, sees } from './tx-snapshot.js';
import { WindowBook } from './window-book.js';
import { runWindows } from './window-model.testing.js';
import type { Mistake, Outcome } from './window-model.testing.js';

const SEEDS = 3_000;

function faults({ log, table }: Outcome): string[] {
  const found: string[] = [];
  const last = new Map<string, { version: number; gone: boolean }>();
  for (const record of log) {
    const before = last.get(record.key);
    if (before !== undefined && record.version < before.version)
      found.push(`${record.key} went back from ${before.version} to ${record.version}`);
    last.set(record.key, record);
  }
  const fold = [...last].filter(([, { gone }]) => !gone).map(([key, { version }]) => `${key}${version}`);
  const wanted = [...table].map(([key, version]) => `${key}${version}`);
  if (fold.toSorted().join() !== wanted.toSorted().join()) found.push(`fold ${fold.join()}, table ${wanted.join()}`);
  return found;
}

describe('snapshot windows', () => {
  it('keeps the fold equal to the table and no key goes back, whatever the order of commit, sight, stream and marks', () => {
    let [repeated, dropped] = [0, 0];
    for (let seed = 1; seed <= SEEDS; seed++) {
      const outcome = runWindows(seed);
      expect([seed, faults(outcome)]).toEqual([seed, []]);
      expect(outcome.kept).toBeLessThan(60);
      repeated += outcome.repeated;
      dropped += outcome.dropped;
    }
    expect(repeated).toBeGreaterThan(100);
    expect(dropped).toBeGreaterThan(100);
  });

  it.each<Mistake>(['publish what is behind', 'publish what changed', 'read before writers ended'])(
    'finds a seed that shows the mistake: %s',
    (mistake) => {
      const seeds = Array.from({ length: SEEDS }, (_, i) => i + 1);
      expect(seeds.find((seed) => faults(runWindows(seed, mistake)).length > 0)).toBeDefined();
    },
  );

  it('sees what ended before the snapshot, across the wrap of 32 bits', () => {
    const snapshot = parseTxSnapshot('4294967290:4294967300:4294967290,4294967298');
    const seen = [4294967289, 4294967290, 4294967295, 0, 1, 2, 3, 4, 5].map((xid) => sees(snapshot, xid));
    expect(seen).toEqual([true, false, true, true, true, false, true, false, false]);
    expect(() => parseTxSnapshot('1:2')).toThrow(RangeError);
    expect(parseTxSnapshot('7:7:').running.size).toBe(0);
    expect(later(parseTxSnapshot('5:8:5,6'), parseTxSnapshot('6:8:6')).running.size).toBe(1);
  });

  it.each([
    ['streamed before low, not yet visible', ['begin', 'low', 'read', 'high'], 'behind'],
    ['streamed before low, visible', ['begin', 'low', 'read later', 'high'], 'publish'],
    ['streamed between the marks, not visible', ['low', 'begin', 'read', 'high'], 'publish'],
    ['TRUNCATE between the marks', ['low', 'disturbed', 'read', 'high'], 'disturbed'],
    ['TRUNCATE before low', ['disturbed', 'low', 'read', 'high'], 'publish'],
    ['high without low', ['read', 'high'], undefined],
    ['given up', ['low', 'read', 'close', 'high'], undefined],
  ])('%s', (_, steps, verdict) => {
    const book = new WindowBook();
    book.open(1, 't');
    const play: Record<string, () => unknown> = {
      begin: () => book.begin(10),
      low: () => book.low(1),
      read: () => book.read(1, parseTxSnapshot('10:11:10')),
      'read later': () => book.read(1, parseTxSnapshot('12:12:')),
      disturbed: () => book.disturbed('t'),
      close: () => book.close(1),
    };
    for (const step of steps.slice(0, -1)) play[step]!();
    expect(book.high(1)?.kind).toBe(verdict);
  });

  it('keeps no transaction that every read sees, also behind a long one', () => {
    const book = new WindowBook();
    book.know(parseTxSnapshot('5:1000:5'));
    for (let xid = 6; xid < 1000; xid++) book.begin(xid);
    expect(book.kept).toBe(0);
    book.open(1, 't');
    for (let xid = 1000; xid < 1100; xid++) book.begin(xid);
    book.low(1);
    expect(book.kept).toBe(100);
    book.read(1, parseTxSnapshot('5:1100:5'));
    expect(book.kept).toBe(100);
    expect(book.high(1)).toEqual({ kind: 'publish', changed: new Set() });
    expect(book.kept).toBe(0);
  });
});
