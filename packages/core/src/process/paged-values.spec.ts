import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import { PagedValues } from './paged-values.js';

const MEBIBYTE = 1 << 20;

describe('PagedValues', () => {
  it('holds what a map would hold, through any sets and deletes', () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
    const random = seededRandom(seed);
    const values = new PagedValues();
    const oracle = new Map<string, Buffer>();
    for (let step = 0; step < 60_000; step++) {
      const key = `ключ ${random.below(600)}`;
      if (random.chance(0.1)) {
        values.delete(key);
        oracle.delete(key);
      } else {
        // Mostly small, sometimes empty, sometimes larger than a page.
        const bytes = random.chance(0.005) ? random.below(400_000) : random.below(2_000);
        const value = Buffer.alloc(bytes, step % 256);
        values.set(key, value);
        oracle.set(key, value);
      }
      if (random.chance(0.0002)) {
        values.clear();
        oracle.clear();
      }
    }
    expect({ seed, keys: [...values.keys()].toSorted() }).toEqual({ seed, keys: [...oracle.keys()].toSorted() });
    expect(values.size).toBe(oracle.size);
    for (const [key, value] of oracle) expect(values.get(key)!.equals(value)).toBe(true);
    expect(values.get('missing')).toBeUndefined();
  });

  it('takes at most about twice the bytes in use, however often they are replaced', () => {
    const values = new PagedValues();
    const random = seededRandom(7);
    for (let step = 0; step < 500_000; step++) values.set(`${random.below(20_000)}`, Buffer.alloc(60, step % 256));
    const inUse = 20_000 * (60 + 5 + 8);
    expect(values.bytes).toBeLessThan(2 * inUse + 20_000 * 48 + MEBIBYTE);
    for (let n = 0; n < 20_000; n++) values.delete(`${n}`);
    expect(values.bytes).toBeLessThan(MEBIBYTE);
  });

  it('never changes a value it gave out', () => {
    const values = new PagedValues();
    values.set('kept', Buffer.from('first'));
    const given = values.get('kept')!;
    for (let step = 0; step < 100_000; step++) values.set(`${step % 50}`, Buffer.alloc(100, step % 256));
    values.set('kept', Buffer.from('other'));
    for (let step = 0; step < 100_000; step++) values.set(`${step % 50}`, Buffer.alloc(100, step % 256));
    expect(given.toString()).toBe('first');
    expect(values.get('kept')!.toString()).toBe('other');
  });

  it('takes a key as text or as its bytes, of any length and characters', () => {
    const values = new PagedValues();
    const keys = ['', 'k', 'ключ', 'a\u0000b', '\u{1f511}'.repeat(3), 'long '.repeat(200), `${'x'.repeat(300)}é`];
    keys.forEach((key, n) => values.set(n % 2 === 0 ? key : Buffer.from(key), Buffer.from(`${n}`)));
    expect(values.keys()).toEqual(keys);
    keys.forEach((key, n) => {
      expect(values.get(key)!.toString()).toBe(`${n}`);
      values.set(n % 2 === 0 ? Buffer.from(key) : key, Buffer.from('new'));
    });
    expect(values.size).toBe(keys.length);
    for (const key of keys) {
      expect(values.get(Buffer.from(key))!.toString()).toBe('new');
      values.delete(Buffer.from(key));
      expect(values.get(key)).toBeUndefined();
    }
    expect([values.size, values.keys()]).toEqual([0, []]);
  });

  it('copies what it is given', () => {
    const values = new PagedValues();
    const given = Buffer.from('as it was');
    values.set('a', given);
    given.fill('x');
    expect(values.get('a')!.toString()).toBe('as it was');
  });
});
