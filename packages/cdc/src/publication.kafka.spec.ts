import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { parseLsn } from './lsn.js';
import { seePublication } from './publication.js';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a', 'b']);
});
afterEach(() => source.close());

const missing = () => ({
  code: 'CDC_PUBLICATION_MISSING',
  message: expect.stringMatching(new RegExp(`"${source.slot}".*does not cover WAL written without it.*new snapshot`)),
});

/** A message is sent without any publication: what is published of its transaction ends behind the row that is not sent. */
const unsent = () =>
  `INSERT INTO a VALUES (3, 'unsent');
   SELECT pg_logical_emit_message(true, 'headwater', '{"topic":"${source.topic('b')}","key":"k","value":"v"}')`;

describe('a publication that is dropped while its capture streams', () => {
  it.each([
    ['and stays dropped', ''],
    ['and is made again at once', 'CREATE PUBLICATION "$" FOR TABLE ONLY a'],
  ])('C95 %s: capture halts with cause and remedy, the slot stays before what was not sent', async (_, again) => {
    const capture = await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    const session = await source.client();
    await session.query(`INSERT INTO a VALUES (2, 'pending')`);
    await session.query(`DROP PUBLICATION "${source.slot}"`);
    const unsentFrom = await source.walLsn();
    await session.query(unsent());
    await session.query(again.replace('$', source.slot));
    await eventually(() => expect(capture.status().state).toBe('halted'), { timeoutMs: 30_000 });
    await expect(capture.finished).rejects.toMatchObject(missing());
    expect(capture.status().reconnects).toBe(1);
    expect((await source.seen('a')).map(({ key }) => key)).toEqual(['1', '2']);
    const left = (await source.slotFacts())!;
    expect(left.pid).toBeNull();
    expect(parseLsn(left.confirmed) <= unsentFrom).toBe(true);
    await expect(source.started(['a'])).rejects.toMatchObject(missing());
    expect((await source.slotFacts())!.confirmed).toBe(left.confirmed);
    await source.started(['a'], { snapshot: 'when-needed' });
    await source.foldEqualsTable();
  });

  it('C95 acknowledges nothing of that at a stop either', async () => {
    const capture = await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    await source.sql.query(`DROP PUBLICATION "${source.slot}"`);
    const unsentFrom = await source.walLsn();
    await source.sql.query(unsent());
    // Published, and to be acknowledged next; a server before 18 ends the stream instead.
    await Promise.race([source.seenIn(source.topic('b'), 1), capture.finished.catch(() => undefined)]);
    await capture.stop();
    await source.slotFree();
    expect(parseLsn((await source.slotFacts())!.confirmed) <= unsentFrom).toBe(true);
    await expect(source.started(['a'])).rejects.toMatchObject(missing());
  });

  it('C95 is in doubt from its DROP on, before anybody sees that', async () => {
    const capture = await source.started(['a']);
    const { publication } = await source.lastPosition();
    await capture.stop();
    const [dropping, looking] = [await source.client(), await source.client()];
    const seen = () => seePublication(looking, source.slot, publication);
    expect(await seen()).toEqual({ oid: publication, changing: false });
    await dropping.query('BEGIN');
    await dropping.query(`DROP PUBLICATION "${source.slot}"`);
    expect(await seen()).toEqual({ oid: publication, changing: true });
    await dropping.query('ROLLBACK');
    expect(await seen()).toEqual({ oid: publication, changing: false });
    await dropping.query(`DROP PUBLICATION "${source.slot}"`);
    expect(await seen()).toEqual({ oid: undefined, changing: false });
  });
});
