import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import { halfSipHash } from './half-sip-hash.js';
import { PlaceIndex } from './place-index.js';

describe('PlaceIndex', () => {
  it.each([1, 3, 20, 2 ** 32])('finds what a map would find, of keys with %d different hashes', (hashes) => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
    const random = seededRandom(seed);
    const index = new PlaceIndex();
    const hashOf = new Map<string, number>();
    const oracle = new Map<string, number>();
    const keyAt = new Map<number, string>();
    const find = (key: string) => index.find(hashOf.get(key)!, (place) => keyAt.get(place) === key);
    let next = 0;
    for (let step = 0; step < 20_000; step++) {
      // Grows for a while, then shrinks.
      const grows = step % 4_000 < 2_000;
      const key = `${random.below(hashes < 100 ? 60 : 500)}`;
      // The last slots of any size, so that what collides goes on at its start.
      if (!hashOf.has(key)) hashOf.set(key, (-1 - random.below(hashes)) | 0);
      const slot = find(key);
      const place = slot < 0 ? undefined : index.place(slot);
      if (place !== oracle.get(key)) throw new Error(`seed ${seed}: ${key} at ${place}, not ${oracle.get(key)}`);
      if (random.chance(grows ? 0.2 : 0.8)) {
        if (slot >= 0) index.remove(slot);
        oracle.delete(key);
        continue;
      }
      keyAt.set(next, key);
      if (slot < 0) index.add(hashOf.get(key)!, next);
      else index.move(slot, next);
      oracle.set(key, next++);
    }
    expect(index.size).toBe(oracle.size);
    for (const [key, place] of oracle) expect(index.place(find(key))).toBe(place);
  });

  it('takes no more than 96 bytes per key, also after most of many keys are removed', () => {
    const index = new PlaceIndex();
    for (let n = 0; n < 100_000; n++) index.add(n, n);
    expect(index.bytes / index.size).toBeLessThanOrEqual(48);
    for (let n = 0; n < 99_000; n++) index.remove(index.find(n, (place) => place === n));
    expect(index.bytes / index.size).toBeLessThanOrEqual(96);
    for (let n = 99_000; n < 100_000; n++) expect(index.place(index.find(n, () => true))).toBe(n);
  });
});

describe('halfSipHash', () => {
  it('is the reference implementation’s', () => {
    const input = Buffer.from(Array.from({ length: 12 }, (_, n) => n));
    const found = Array.from({ length: 12 }, (_, length) => {
      const out = Buffer.alloc(4);
      out.writeInt32LE(halfSipHash(input, 0, length, [0x03020100, 0x07060504], 2, 4));
      return out.toString('hex');
    });
    // https://github.com/veorq/SipHash, vectors_hsip32.
    expect(found.join(' ')).toBe(
      'a9359f5b 27475ab8 fa62a603 8afee704 2a6e4689 c5fab669 5863fc23 8bcf63c5 d0b8848f f806e779 94b07934 08083050',
    );
  });
});
