import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { controlParked, headerText, listParked, showParked } from '@headwater/core';
import type { ParkedAct, ParkedSequence, ParkedUnit } from '@headwater/core';
import { eventually } from '@headwater/testing';
import { IsInt, MaxLength } from 'class-validator';
import type { CaptureOptions } from '../capture.options.js';
import { Source } from '../source.testing.js';
import { parkedNameOf, parkingTopics } from './parked-topics.js';

class Row {
  @IsInt() id!: number;
  @MaxLength(5) b!: string;
}
class WiderRow {
  @IsInt() id!: number;
  @MaxLength(50) b!: string;
}

let source: Source;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
});
afterEach(async () => {
  await source.log.admin.deleteTopics(parkingTopics(source.name).map(({ topic }) => topic)).catch(() => {});
  await source.close();
});

const parks = (contract: CaptureOptions['tables'][number]['contract'] = Row): Partial<CaptureOptions> => ({
  onRefused: 'park',
  tables: [{ table: 'public.a', topic: source.topic('a'), contract: contract! }],
});
const name = () => parkedNameOf(source.name);
const listed = () => listParked(source.log, name());
const sequence = (key: string) => `${source.topic('a')}/${key}`;

function recordOf({ unit }: ParkedUnit) {
  if (!('record' in unit)) throw new Error('a timer');
  return unit.record;
}
/** Operation, value and code of each unit. */
const brief = ({ units }: ParkedSequence) =>
  units.map((unit) => {
    const { headers, value } = recordOf(unit);
    return `${headerText(headers, 'hw_op')} ${value === null ? null : (JSON.parse(value.toString()) as { b: string }).b} ${unit.code}`;
  });
const parked = async (key: string, count: number) =>
  eventually(async () => {
    const found = (await listed()).find((one) => one.key === key);
    if (found?.units.length !== count) throw new Error(`${found?.units.length} of ${count}: ${source.errors.join()}`);
    return found;
  });
const ask = (key: string, act: ParkedAct) =>
  controlParked(source.log, { processor: name(), sequence: sequence(key), act, reason: 'mended', by: 'ada' });
const keys = async () => (await source.seen('a')).map(({ key, op, seq }) => `${key} ${op} ${seq}`);

describe('parked changes', () => {
  it('C81 parks a change that breaks its contract, and what follows on its key, in order, over a restart; other keys are not late', async () => {
    await source.topics(['a'], 2);
    const first = await source.started(['a'], parks());
    await source.sql.query(`INSERT INTO a VALUES (1, 'one'), (2, 'far too long'), (3, 'three')`);
    const { rows } = await source.sql.query<{ lsn: string }>('SELECT pg_current_wal_lsn() AS lsn');
    await source.seenCount('a', 2);
    const unit = (await parked('2', 1)).units[0]!;
    const { headers, value } = recordOf(unit);
    const [seen] = await source.seen('a');
    expect(unit).toMatchObject({ code: 'CONTRACT_VIOLATED', bare: false });
    expect(unit.reason).toMatch(/b must be shorter than or equal to 5/);
    expect(value!.toString()).toBe('{"id":2,"b":"far too long"}');
    const of = (header: string) => headerText(headers, header);
    expect([of('hw_op'), of('hw_tx'), of('hw_seq'), of('hw_table')]).toEqual(['c', seen!.tx, '1', 'public.a']);
    expect([of('hw_lsn'), rows.length]).toEqual([seen!.lsn, 1]);
    // As if nothing had been taken out.
    expect((await keys()).toSorted()).toEqual(['1 c 0', '3 c 2']);
    expect(source.messages.join()).toMatch(/parked c of public\.a with key "2" at [\dA-F/]+ .*shorter than or equal/);
    await source.sql.query(`UPDATE a SET b = 'fits' WHERE id = 2`);
    await parked('2', 2);
    expect(first.status()).toMatchObject({ parked: { changes: 2, keys: 1 }, rows: 2 });
    await first.stop();
    await source.sql.query(`UPDATE a SET b = 'again' WHERE id = 2`);
    const second = await source.started(['a'], parks());
    await source.sql.query(`DELETE FROM a WHERE id = 2`);
    await source.sql.query(`INSERT INTO a VALUES (2, 'new'), (4, 'four')`);
    const all = await source.seenCount('a', 3);
    const chain = [
      'c far too long CONTRACT_VIOLATED',
      'u fits KEY_PARKED',
      'u again KEY_PARKED',
      'd null KEY_PARKED',
      'c new KEY_PARKED',
    ];
    expect(brief(await parked('2', 5))).toEqual(chain);
    for (const { record } of all) {
      const committedMs = Number(headerText(record.headers, 'hw_ts')) / 1_000;
      expect(record.timestamp - committedMs).toBeLessThan(1_000);
    }
    expect(second.status().parked).toEqual({ changes: 5, keys: 1 });
    // Under the same contract nothing moves.
    expect(await ask('2', { act: 'retry' })).toMatchObject({ outcome: 'parked', handled: 0, left: 5 });
    expect(brief(await parked('2', 5))).toEqual(chain);
    await second.stop();
    const third = await source.started(['a'], parks(WiderRow));
    expect(await ask('2', { act: 'retry' })).toEqual({ outcome: 'done', handled: 5, dropped: 0, left: 0 });
    const of2 = (await source.seenCount('a', 8)).filter(({ key }) => key === '2');
    expect(of2.map(({ op, value: text }) => `${op} ${text}`)).toEqual([
      'c {"id":2,"b":"far too long"}',
      'u {"id":2,"b":"fits"}',
      'u {"id":2,"b":"again"}',
      'd undefined',
      'c {"id":2,"b":"new"}',
    ]);
    expect([of2[0]!.tx, of2[0]!.seq, of2[0]!.lsn]).toEqual([seen!.tx, 1, seen!.lsn]);
    expect([await listed(), third.status().parked]).toEqual([[], { changes: 0, keys: 0 }]);
    await source.sql.query(`UPDATE a SET b = 'flows' WHERE id = 2`);
    await source.seenCount('a', 9);
    await source.foldEqualsTable();
  });

  it('C28 C81 parks a record larger than its topic takes, and goes on; killed before the next change of its key, that comes behind it', async () => {
    await source.topics(['a'], 1, { 'max.message.bytes': '20000' });
    const child = await source.process(['a'], { onRefused: 'park' });
    await source.sql.query(`INSERT INTO a VALUES (1, 'small'), (2, repeat('x', 50000)), (3, 'small')`);
    await source.seenCount('a', 2);
    const unit = (await parked('2', 1)).units[0]!;
    expect(unit).toMatchObject({ code: 'CDC_RECORD_REFUSED', bare: false });
    expect(unit.reason).toMatch(/takes 50\d\d\d bytes, and .*\.a takes 199\d\d/);
    expect(recordOf(unit).value).toHaveLength(50_000 + '{"id":2,"b":""}'.length);
    await child.kill();
    await source.sql.query(`UPDATE a SET b = 'later' WHERE id IN (1, 2)`);
    const capture = await source.started(['a'], { onRefused: 'park' });
    await source.seenCount('a', 3);
    expect((await parked('2', 2)).units.map(({ code }) => code)).toEqual(['CDC_RECORD_REFUSED', 'KEY_PARKED']);
    expect(await keys()).toEqual(['1 c 0', '3 c 2', '1 u 0']);
    await source.log.admin.applyTopics([
      { topic: source.topic('a'), partitions: 1, cleanupPolicy: 'compact', config: { 'max.message.bytes': '100000' } },
    ]);
    expect(await ask('2', { act: 'retry' })).toEqual({ outcome: 'done', handled: 2, dropped: 0, left: 0 });
    expect((await source.seenCount('a', 5)).slice(3).map(({ key, op, seq }) => `${key} ${op} ${seq}`)).toEqual([
      '2 c 1',
      '2 u 1',
    ]);
    await source.foldEqualsTable();
    expect(capture.status()).toMatchObject({ reconnects: 0, parked: { changes: 0, keys: 0 } });
  });

  it('C28 keeps no value that the parked topics do not take either, says so, and reads the row again on retry', async () => {
    await source.topics(['a']);
    await source.started(['a'], { onRefused: 'park' });
    await source.sql.query(`INSERT INTO a VALUES (1, repeat('x', 2000000)), (2, repeat('y', 2000000))`);
    await source.sql.query(`INSERT INTO a VALUES (3, 'small')`);
    await source.seenCount('a', 1);
    expect((await parked('1', 1)).units[0]).toMatchObject({ code: 'CDC_RECORD_REFUSED', bare: true });
    const copies = await source.seenIn(`headwater.${name()}.parked`, 2);
    expect(copies.map(({ key, value, record }) => [key, value, headerText(record.headers, 'hw_parked_value')])).toEqual(
      [
        ['1', undefined, 'omitted'],
        ['2', undefined, 'omitted'],
      ],
    );
    await source.sql.query(`UPDATE a SET b = 'shorter' WHERE id = 1`);
    await source.sql.query(`DELETE FROM a WHERE id = 2`);
    await parked('1', 2);
    await parked('2', 2);
    expect(await ask('1', { act: 'retry' })).toEqual({ outcome: 'done', handled: 2, dropped: 0, left: 0 });
    // Its row is gone: what is left to tell is that.
    expect(await ask('2', { act: 'retry' })).toEqual({ outcome: 'done', handled: 1, dropped: 1, left: 0 });
    const seen = (await source.seenCount('a', 4)).slice(1);
    expect(seen.map(({ key, op, value }) => `${key} ${op} ${value}`)).toEqual([
      '1 c {"id":1,"b":"shorter"}',
      '1 u {"id":1,"b":"shorter"}',
      '2 d undefined',
    ]);
    expect(seen.map(({ record }) => headerText(record.headers, 'hw_reread') !== undefined)).toEqual([
      true,
      false,
      false,
    ]);
  });

  it('C28 parks also what the log refuses below the limit it told at first', async () => {
    await source.topics(['a']);
    await source.started(['a'], { onRefused: 'park' });
    await source.log.admin.applyTopics([
      { topic: source.topic('a'), partitions: 1, cleanupPolicy: 'compact', config: { 'max.message.bytes': '20000' } },
    ]);
    await source.sql.query(`INSERT INTO a VALUES (1, 'small'), (2, repeat('x', 50000)), (3, 'small')`);
    await source.seenCount('a', 2);
    expect((await parked('2', 1)).units[0]).toMatchObject({ code: 'CDC_RECORD_REFUSED', bare: false });
    expect(await keys()).toEqual(['1 c 0', '3 c 2']);
  });

  it('drops one change when an operator discards it, refuses to edit one, and does each order once', async () => {
    await source.topics(['a']);
    const capture = await source.started(['a'], parks());
    await source.sql.query(`INSERT INTO a VALUES (1, 'far too long')`);
    for (const b of ['two', 'three', 'too long again', 'five'])
      await source.sql.query('UPDATE a SET b = $1 WHERE id = 1', [b]);
    await parked('1', 5);
    expect(await ask('1', { act: 'edit', value: Buffer.from('{}') })).toMatchObject({ outcome: 'refused', left: 5 });
    expect(await ask('1', { act: 'discard', all: false })).toMatchObject({ outcome: 'done', dropped: 1, left: 4 });
    expect(await ask('1', { act: 'retry' })).toMatchObject({ outcome: 'parked', handled: 2, left: 2 });
    expect(brief(await showParked(source.log, name(), '1'))).toEqual([
      'u too long again CONTRACT_VIOLATED',
      'u five KEY_PARKED',
    ]);
    await capture.stop();
    // An order waits for the next process, which does not carry out the former ones again.
    const waiting = ask('1', { act: 'discard', all: true });
    await source.started(['a'], parks());
    expect(await waiting).toMatchObject({ outcome: 'done', dropped: 2, left: 0 });
    await source.sql.query(`UPDATE a SET b = 'six' WHERE id = 1`);
    expect((await source.seenCount('a', 3)).map(({ value }) => value)).toEqual([
      '{"id":1,"b":"two"}',
      '{"id":1,"b":"three"}',
      '{"id":1,"b":"six"}',
    ]);
    const history = await source.seenIn(`headwater.${name()}.parked`, 9);
    const acts = history.map(({ record: { headers } }) =>
      ['hw_act', 'hw_outcome'].map((of) => headerText(headers, of)).join(' '),
    );
    expect(acts.filter((act) => act !== ' ')).toEqual([
      'edit refused',
      'discard done',
      'retry parked',
      'discard-all done',
    ]);
  });

  it('C81 parks rows of a snapshot that break the contract, and those of a key that is parked', async () => {
    await source.topics(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'one'), (2, 'far too long'), (3, 'three')`);
    const capture = await source.started(['a'], parks());
    await source.seenCount('a', 2);
    expect(brief(await parked('2', 1))).toEqual(['r far too long CONTRACT_VIOLATED']);
    expect(await keys()).toEqual(['1 r 0', '3 r 2']);
    await source.sql.query(`UPDATE a SET b = 'fits' WHERE id = 2`);
    await parked('2', 2);
    await capture.snapshot({ tables: ['public.a'] });
    await source.seenCount('a', 4);
    const expected = ['r far too long CONTRACT_VIOLATED', 'u fits KEY_PARKED', 'r fits KEY_PARKED'];
    expect(brief(await parked('2', 3))).toEqual(expected);
    expect(await keys()).toEqual(['1 r 0', '3 r 2', '1 r 0', '3 r 2']);
  });

  it('C81 parks a value that its type never prints, with its text, in stream and snapshot alike', async () => {
    // Capture takes a type of this name for the extension's.
    await source.sql.query(`CREATE TYPE hstore AS ENUM ('no pairs')`);
    await source.sql.query('CREATE TABLE h (id int PRIMARY KEY, b hstore, secret text)');
    await source.sql.query(`INSERT INTO h VALUES (1, 'no pairs', 'canary'), (2, NULL, 'canary')`);
    await source.topics(['h']);
    const tables = [{ table: 'public.h', topic: source.topic('h'), columns: { secret: 'mask' } as const }];
    await source.started(['h'], { onRefused: 'park', tables });
    await source.sql.query(`INSERT INTO h VALUES (3, 'no pairs', 'canary'), (4, NULL, 'canary')`);
    expect((await source.seenCount('h', 2)).map(({ key, op, seq }) => `${key} ${op} ${seq}`)).toEqual([
      '2 r 1',
      '4 c 1',
    ]);
    const [one, three] = await eventually(async () => {
      const found = await listed();
      expect(found).toHaveLength(2);
      return found;
    });
    for (const found of [one!, three!]) {
      expect(brief(found)[0]).toMatch(/^[rc] no pairs CDC_VALUE_INVALID$/);
      expect(recordOf(found.units[0]!).value!.toString()).toMatch(/^\{"id":\d,"b":"no pairs","secret":"\*\*\*"\}$/);
      expect(headerText(recordOf(found.units[0]!).headers, 'hw_parked_value')).toBe('text');
    }
    const order = { processor: name(), act: { act: 'retry' }, reason: 'mended', by: 'ada' } as const;
    expect(await controlParked(source.log, { ...order, sequence: three!.sequence })).toMatchObject({
      outcome: 'parked',
    });
    await source.sql.query(`UPDATE h SET b = NULL`);
    expect(await controlParked(source.log, { ...order, sequence: three!.sequence })).toMatchObject({ outcome: 'done' });
    expect((await source.seen('h')).findLast(({ key }) => key === '3')).toMatchObject({
      op: 'u',
      value: '{"id":3,"b":null,"secret":"***"}',
    });
  });

  it('C81 halts a snapshot that it needs at a value that its type never prints, naming table and column', async () => {
    await source.sql.query(`CREATE TYPE hstore AS ENUM ('no pairs')`);
    await source.sql.query('CREATE TABLE h (id int PRIMARY KEY, b hstore)');
    await source.sql.query(`INSERT INTO h VALUES (1, 'no pairs')`);
    await source.topics(['h']);
    await expect(source.capture(['h']).start()).rejects.toMatchObject({
      code: 'CDC_VALUE_INVALID',
      facts: { table: 'public.h', columns: ['b'] },
    });
    expect(await source.seen('h')).toEqual([]);
  });

  it('C81 halts before the transaction under the policy halt, naming table, key and rule', async () => {
    await source.topics(['a']);
    const capture = await source.started(['a'], { ...parks(), onRefused: 'halt' });
    await source.sql.query(`INSERT INTO a VALUES (1, 'one')`);
    await source.seenCount('a', 1);
    await source.sql.query(`INSERT INTO a VALUES (2, 'two'), (3, 'far too long')`);
    await expect(capture.finished).rejects.toMatchObject({
      code: 'CDC_CONTRACT_VIOLATED',
      facts: { table: 'public.a', key: '3' },
      message: expect.stringMatching(/"3".*shorter than or equal to 5/),
    });
    await source.settled(['a']);
    expect(await keys()).toEqual(['1 c 0']);
  });

  it.each(['tombstones', 'marker'] as const)(
    'C61 C81 lets a TRUNCATE (%s) come behind what is parked',
    async (truncate) => {
      await source.topics(['a']);
      await source.started(['a'], { ...parks(), truncate });
      await source.sql.query(`INSERT INTO a VALUES (1, 'one'), (2, 'far too long')`);
      await parked('2', 1);
      await source.sql.query('TRUNCATE a');
      expect(brief(await parked('2', 2))).toEqual(['c far too long CONTRACT_VIOLATED', 't null KEY_PARKED']);
    },
  );

  it('C81 keeps partition and key of a table whose rows lie by another column and share a topic, parked, read again and truncated', async () => {
    await source.topics(['a'], 4);
    await source.sql.query(
      'CREATE TABLE c (id int PRIMARY KEY, tenant text, b text); ALTER TABLE c REPLICA IDENTITY FULL',
    );
    const table = { table: 'public.c', topic: source.topic('a'), partitionBy: ['tenant'], keyWithTable: true };
    const options = { onRefused: 'park', tables: [{ ...table, contract: WiderRow }], truncate: 'tombstones' } as const;
    await source.started(['c'], options);
    const tenants = ['north', 'south', 'east', 'west'];
    const insert = (id: number, of: string, b: string) =>
      source.sql.query('INSERT INTO c VALUES ($1, $2, $3)', [id, of, b]);
    for (const [id, of] of tenants.entries()) await insert(id, of, 'fits');
    for (const [id, of] of tenants.entries()) await insert(10 + id, of, 'x'.repeat(60));
    for (const [id, of] of tenants.entries()) await insert(20 + id, of, 'y'.repeat(2_000_000));
    await eventually(async () => expect(await listed()).toHaveLength(8));
    await source.sql.query(`UPDATE c SET b = 'shorter' WHERE id >= 20`);
    await eventually(async () => expect((await listed()).map(({ units }) => units.length)).toContain(2));
    const key = (id: number) => JSON.stringify(['public.c', String(id)]);
    for (const id of [20, 21, 22, 23]) {
      await parked(key(id), 2);
      expect(await ask(key(id), { act: 'retry' })).toMatchObject({ outcome: 'done', handled: 2 });
    }
    const seen = await source.seenCount('a', 12);
    const partitionOf = (id: number) => seen.filter((one) => one.key === key(id)).map(({ record }) => record.partition);
    for (const id of [0, 1, 2, 3]) expect(partitionOf(20 + id)).toEqual([...partitionOf(id), ...partitionOf(id)]);
    await source.sql.query('TRUNCATE c');
    for (const [id] of tenants.entries()) {
      const { units } = await parked(key(10 + id), 2);
      expect(units.map((unit) => recordOf(unit).partition)).toEqual([...partitionOf(id), ...partitionOf(id)]);
    }
  });
});
