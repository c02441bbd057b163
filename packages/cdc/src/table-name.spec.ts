import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import { formatTableName, parseTableName, topicOfTable } from './table-name.js';

const LETTERS = ['a', 'B', '_', '-', 'x', '2', 'e', 'd', '.', '"', ' ', 'ß', '😀', '\n'];

describe('names of tables', () => {
  it('are read in one way or not at all', () => {
    expect(parseTableName('public.Orders')).toEqual({ schema: 'public', table: 'Orders' });
    expect(parseTableName('"a.b".c')).toEqual({ schema: 'a.b', table: 'c' });
    expect(parseTableName('a."b.c"')).toEqual({ schema: 'a', table: 'b.c' });
    expect(parseTableName('"public"."Größe ""x"""')).toEqual({ schema: 'public', table: 'Größe "x"' });
    for (const text of ['', 'orders', 'a.b.c', 'a.', '.b', '"a.b', 'a."', 'a.""', 'a."b"c', '"a"b.c'])
      expect([text, parseTableName(text)]).toEqual([text, undefined]);
  });

  it('come back from their text, and no two of them share a text or a legal topic', () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
    const random = seededRandom(seed);
    const word = () => Array.from({ length: 1 + random.below(6) }, () => random.pick(LETTERS)).join('');
    const texts = new Map<string, string>();
    const wrong: unknown[] = [];
    for (let i = 0; i < 20_000; i++) {
      const name = { schema: word(), table: word() };
      const id = JSON.stringify(name);
      const topic = topicOfTable('shop', name);
      if (JSON.stringify(parseTableName(formatTableName(name))) !== id) wrong.push([seed, name, 'is read otherwise']);
      if (!/^shop\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/.test(topic)) wrong.push([seed, name, topic]);
      for (const text of [formatTableName(name), topic]) {
        if ((texts.get(text) ?? id) !== id) wrong.push([seed, name, text, texts.get(text)]);
        texts.set(text, id);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('keep an ordinary table readable in its topic', () => {
    expect(topicOfTable('shop', { schema: 'public', table: 'order_lines' })).toBe('shop.public.order_lines');
    expect(topicOfTable('shop', { schema: 'a.b', table: 'c' })).toBe('shop.a-x2eb.c');
    expect(topicOfTable('shop', { schema: 'a', table: 'b.c' })).toBe('shop.a.b-x2ec');
  });
});
