import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import { boundariesSelect, chunkSelect, stretches } from './chunk-query.js';
import type { SourceShape } from './chunk-query.js';
import { parseCopyRow } from './copy-row.js';

const shape: SourceShape = {
  from: 'ONLY public.t',
  columns: [
    { name: 'a"b', typeOid: 23, type: 'integer' },
    { name: 'c', typeOid: 1700, type: 'numeric(10,2)' },
    { name: 'd', typeOid: 25, type: 'text' },
  ],
  filter: 'active',
};

describe('chunkSelect', () => {
  it('reads behind a key up to another one, with the types of its columns, and all rows of the last key', () => {
    const stretch = { after: ['1', "o'b"], upTo: ['9', 'z'] };
    expect(chunkSelect({ shape, key: ['a"b', 'd'], where: 'x > 1 -- why', stretch, limit: 7 })).toBe(
      `SELECT "a""b", "c", "d" FROM ONLY public.t WHERE (active) AND (\nx > 1 -- why\n) AND ("a""b", "d") > ('1'::integer, 'o''b'::text) AND ("a""b", "d") <= ('9'::integer, 'z'::text) ORDER BY "a""b", "d" FETCH FIRST 7 ROWS WITH TIES`,
    );
    const whole = { shape: { ...shape, filter: null }, key: ['c'], where: null, stretch: { after: null, upTo: null } };
    expect(chunkSelect({ ...whole, limit: 1 })).toBe(
      'SELECT "a""b", "c", "d" FROM ONLY public.t ORDER BY "c" FETCH FIRST 1 ROWS WITH TIES',
    );
    expect(() => chunkSelect({ ...whole, key: ['e'], stretch: { after: ['1'], upTo: null }, limit: 1 })).toThrow('e');
  });

  it('cuts a table into stretches without gap or overlap', () => {
    expect(stretches([])).toEqual([{ after: null, upTo: null }]);
    expect(stretches([['3'], ['6']])).toEqual([
      { after: null, upTo: ['3'] },
      { after: ['3'], upTo: ['6'] },
      { after: ['6'], upTo: null },
    ]);
    expect(boundariesSelect(shape, ['c'], 3, 12)).toMatch(/SYSTEM \(12\).*\(n \* 1\) \/ 3, \(n \* 2\) \/ 3/);
  });
});

describe('parseCopyRow', () => {
  it('reads back whatever COPY escapes', () => {
    const letters = ['\\', '\t', '\n', '\r', '\b', '\f', '\v', 'N', 'x', 'é', '😀', '"', ' ', '.'];
    const escapes: Record<string, string> = {
      '\\': '\\\\',
      '\t': '\\t',
      '\n': '\\n',
      '\r': '\\r',
      '\b': '\\b',
      '\f': '\\f',
      '\v': '\\v',
    };
    for (let seed = 1; seed <= 2_000; seed++) {
      const random = seededRandom(seed);
      const row = Array.from({ length: 1 + random.below(5) }, () =>
        random.chance(0.2) ? null : Array.from({ length: random.below(6) }, () => random.pick(letters)).join(''),
      );
      const line = row
        .map((value) => (value === null ? '\\N' : value.replaceAll(/[\\\t\n\r\b\f\v]/g, (of) => escapes[of]!)))
        .join('\t');
      expect([seed, parseCopyRow(Buffer.from(`${line}\n`), row.length)]).toEqual([seed, row]);
    }
  });

  it('refuses a line with more or fewer columns', () => {
    expect(() => parseCopyRow(Buffer.from('a\tb\n'), 3)).toThrow(RangeError);
    expect(() => parseCopyRow(Buffer.from('a\tb\n'), 1)).toThrow(RangeError);
  });
});
