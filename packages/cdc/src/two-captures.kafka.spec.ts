import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE b (id int PRIMARY KEY)');
  await source.topics(['a', 'b', 'second.a']);
});
afterEach(() => source.close());

const secondName = () => `${source.name}_2`;

const second = () => ({
  name: secondName(),
  tables: [{ table: 'public.a', topic: source.topic('second.a') }],
});

async function slots(): Promise<Record<string, boolean>> {
  const { rows } = await source.sql.query<{ name: string; active: boolean }>(
    'SELECT slot_name AS name, active FROM pg_replication_slots WHERE database = current_database()',
  );
  return Object.fromEntries(rows.map(({ name, active }) => [name, active]));
}

describe('captures of one database', () => {
  it('C102 see every change of their tables once, each with slot, position and fencing of its own', async () => {
    const first = await source.started(['a', 'b']);
    const other = await source.started([], second());
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 100) g; INSERT INTO b VALUES (1)`);
    for (const topic of ['a', 'second.a']) {
      const seen = await source.seenCount(topic, 100);
      expect(new Set(seen.map(({ key }) => key)).size).toBe(100);
    }
    expect(await slots()).toEqual({ [source.slot]: true, [`headwater_${secondName()}`]: true });
    // One that stops, and starts anew with its fence, touches nothing of the other.
    const { reconnects } = other.status();
    await first.stop();
    await source.sql.query(`UPDATE a SET b = 'y' WHERE id <= 10`);
    await source.seenCount('second.a', 110);
    expect(other.status()).toMatchObject({ state: 'streaming', reconnects, lastError: undefined });
    await source.started(['a', 'b']);
    const seen = await source.seenCount('a', 110);
    await source.sql.query('INSERT INTO b VALUES (2)');
    await source.seenCount('b', 2);
    for (const records of [seen, await source.seen('second.a')]) {
      expect(records).toHaveLength(110);
      expect(new Set(records.map(({ tx, seq }) => `${tx}/${seq}`)).size).toBe(110);
    }
    expect(other.status()).toMatchObject({ state: 'streaming', reconnects, lastError: undefined });
    await other.stop();
    await source.log.admin.deleteTopics([`headwater.cdc.${secondName()}.position`]);
  });
});
