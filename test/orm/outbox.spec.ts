import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Database, Event, Key, ensureSchema, outbox } from '@headwater/core';
import { eventually, testDatabase } from '@headwater/testing';
import type { TestDatabase } from '@headwater/testing';
import { IsString } from 'class-validator';
import { LIBRARIES } from './libraries.js';
import type { Library } from './libraries.js';

@Event({ topic: 'orm.events', type: 'Said' })
class Said {
  @Key() @IsString() id!: string;
  @IsString() text!: string;
}

const said = (id: string) => Object.assign(new Said(), { id, text: `it's ? and $1 and "ü"` });
const options = { source: 'test/orm' };

let place: TestDatabase;
let database: Database;
let library: Library;
beforeEach(async () => {
  place = await testDatabase(process.env['DATABASE_URL'] ?? '');
  database = new Database(place.url);
  await ensureSchema(database, ['CREATE TABLE t (id int PRIMARY KEY)']);
  await database.query(`SELECT pg_create_logical_replication_slot('orm_' || current_database(), 'test_decoding')`);
});
afterEach(async () => {
  await library.close();
  await database.close();
  await place.drop();
});

/** What reached the WAL for good: the transactions of rows and of messages, in their order. */
async function decoded(): Promise<{ rows: string[]; messages: string[]; text: string }> {
  const { rows } = await database.query<{ xid: string; data: string }>(
    `SELECT xid::text, data FROM pg_logical_slot_get_changes('orm_' || current_database(), NULL, NULL)`,
  );
  const of = (pattern: RegExp) => rows.filter(({ data }) => pattern.test(data));
  return {
    rows: of(/^table public\.t: INSERT/).map(({ xid }) => xid),
    messages: of(/^message: .*prefix: headwater,/).map(({ xid }) => xid),
    text: rows.map(({ data }) => data).join('\n'),
  };
}

describe.each(Object.keys(LIBRARIES))('the outbox in a transaction of %s', (name) => {
  it('has the transaction of its rows, is silent on rollback and refused outside', async () => {
    library = await LIBRARIES[name]!(place.url);
    await decoded();
    await library.transaction(async (tx, insert) => {
      await outbox.context(tx, { hw_actor: 'test' });
      await insert(1);
      await outbox.emit(tx, said('one'), options);
      await outbox.emit(tx, said('two'), options);
    });
    const { rows, messages, text } = await decoded();
    expect(rows).toHaveLength(1);
    expect(messages).toEqual([rows[0], rows[0]]);
    expect(text).toContain(JSON.stringify(JSON.stringify({ id: 'one', text: said('one').text })));
    expect(text).toMatch(/prefix: headwater\.ctx, .*\{"hw_actor": "test"\}/);

    const undone = library.transaction(async (tx, insert) => {
      await insert(2);
      await outbox.emit(tx, said('three'), options);
      throw new Error('undone');
    });
    await expect(undone).rejects.toThrow('undone');
    await expect(outbox.emit(library.outside, said('four'), options)).rejects.toMatchObject({
      code: 'OUTBOX_NO_TRANSACTION',
    });
    expect(await decoded()).toEqual({ rows: [], messages: [], text: '' });

    // C99's refusal must keep its name through the library's own errors.
    const huge = library.transaction((tx) =>
      outbox.emit(tx, Object.assign(said('big'), { text: 'x'.repeat(1_000_001) }), options),
    );
    await expect(huge).rejects.toMatchObject({ code: 'OUTBOX_MESSAGE_TOO_LARGE' });
    expect((await decoded()).messages).toEqual([]);
    await outbox.emitNow(library.outside, said('five'), options);
    // Before Postgres 17 the WAL writer flushes it, a moment later.
    await eventually(async () => expect((await decoded()).messages).toHaveLength(1));
  });
});
