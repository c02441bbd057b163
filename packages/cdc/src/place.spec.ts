import { expect, it } from '@jest/globals';
import { partitionOf, RecordRuns, decodeRun } from '@headwater/core';
import { seededRandom } from '@headwater/testing';
import { Chunk } from './snapshot/chunk.js';
import type { Lsn } from './lsn.js';
import { placeNamed, placeOf } from './place.js';
import type { Tuple } from './pgoutput.js';
import { RowEncoder } from './row-encoder.js';
import { RowSpans } from './row-spans.js';
import { keyText, routeText, tableShape } from './rows.js';
import { SourceBlock } from './source-block.js';

const TEXTS = ['', '7', 'a"b', 'ä\u0001', '["public.t","7"]', '\\', '12345678901234567890', null];
const PARTITIONS = 5;

it('a place names key and partition, and a key alone where Kafka would put it', () => {
  for (const key of ['7', '', '0', '["public.t","7"]', '3 7'])
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const name = placeOf(key, partition, PARTITIONS);
      const own = partitionOf(Buffer.from(key), PARTITIONS) === partition;
      expect(placeNamed(name)).toEqual({ key, partition: own ? undefined : partition });
      expect(placeOf(Buffer.from(key), partition, PARTITIONS)).toBe(name);
    }
});

it('rows have one key and one partition by snapshot and by stream, a moved one leaves a tombstone behind', () => {
  const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const random = seededRandom(seed);
  const encode = (text: string) => JSON.stringify(text);
  const columns = ['a', 'b', 'c', 'd'].map((name) => ({ name, encode }));
  for (let round = 0; round < 500; round++) {
    const names = ['a', 'b', 'c'].slice(0, 1 + random.below(3));
    const partitionBy = [...new Set([random.pick(['a', 'c', 'd']), random.pick(['b', 'd'])])];
    const shape = tableShape(
      {
        table: 'public.t',
        topic: 't',
        keyWithTable: random.pick([true, false]),
        ...(random.pick([true, true, false]) && { partitionBy }),
      },
      columns,
      names,
    );
    const keyed = (): Tuple =>
      columns.map(({ name }) => random.pick(names.includes(name) ? TEXTS.slice(0, -1) : TEXTS)!);
    const [row, old] = [keyed(), keyed()];
    const partition = (tuple: Tuple) =>
      partitionOf(Buffer.from(routeText(shape, tuple) ?? keyText(shape, tuple)!), PARTITIONS);
    const wanted = [old, row].map((tuple) => [keyText(shape, tuple), partition(tuple)]);
    const moved = JSON.stringify(wanted[0]) !== JSON.stringify(wanted[1]);

    const runs = new RecordRuns();
    const source = new SourceBlock().set('0/1', '1', 1n);
    const encoder = new RowEncoder(shape, runs.openTopic('t', PARTITIONS));
    const added = encoder.upsert('u', new RowSpans().fill(row), new RowSpans().fill(old), source, 0);
    const told2 = added === 2 ? [encoder.placeBefore, encoder.place] : [encoder.place];
    const told = runs.take('everything', 0).flatMap(decodeRun);
    const seqOf = (headers: readonly (readonly [string, Buffer | null])[] = []) =>
      Number(headers.find(([name]) => name === 'hw_seq')![1]!.toString());
    const stream = told
      .toSorted((x, y) => seqOf(x.headers) - seqOf(y.headers))
      .map((record) => [record.key!.toString(), record.partition, record.value === null]);
    const expected = wanted.map(([key, at], i) => [key, at, i === 0]);
    expect([seed, stream]).toEqual([seed, moved ? expected : expected.slice(1)]);
    const places = told2
      .map(placeNamed)
      .map(({ key, partition: at }) => [key, at ?? partitionOf(Buffer.from(key), PARTITIONS)]);
    expect([seed, places]).toEqual([seed, moved ? wanted : wanted.slice(1)]);

    const chunk = new Chunk(shape, PARTITIONS);
    const copied = (text: string | null | undefined) =>
      text === null ? '\\N' : text!.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
    chunk.add(Buffer.from(`${row.map(copied).join('\t')}\n`));
    const [snapshot] = [...chunk.records(1n as Lsn, () => false)];
    const at = snapshot!.partition ?? partitionOf(snapshot!.key!, PARTITIONS);
    const upsert = told.find(({ value }) => value !== null)!;
    expect([snapshot!.key, at, snapshot!.value]).toEqual([upsert.key, upsert.partition, upsert.value]);
    // What the stream has told of this place is not told again.
    expect([...chunk.records(1n as Lsn, (place) => place === encoder.place)]).toEqual([]);
  }
});

it('a row whose old partition is not told has no place', () => {
  const columns = ['id', 'by'].map((name) => ({ name, encode: (text: string) => text }));
  const shape = tableShape({ table: 'public.t', topic: 't', partitionBy: ['by'] }, columns, ['id'], true);
  const encoder = new RowEncoder(shape, new RecordRuns().openTopic('t', PARTITIONS));
  const source = new SourceBlock().set('0/1', '1', 1n);
  const row = (...texts: Tuple) => new RowSpans().fill(texts);
  const keyOnly = row('1', null);
  keyOnly.isKey = true;
  expect(encoder.upsert('u', row('1', 'x'), undefined, source, 0)).toBe(0);
  expect(encoder.upsert('u', row('1', 'x'), keyOnly, source, 0)).toBe(0);
  expect(encoder.upsert('u', row('1', undefined), undefined, source, 0)).toBe(0);
  expect(encoder.tombstone('d', keyOnly, source, 0)).toBe(false);
  expect(encoder.tombstone('d', row('1', null), source, 0)).toBe(true);
  expect(encoder.upsert('c', row('1', null), undefined, source, 0)).toBe(1);
});
