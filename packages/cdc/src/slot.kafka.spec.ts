import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { parseLsn } from './lsn.js';
import { positionRecord } from './position.js';
import { openReplicationSession } from './postgres-session.js';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
});
afterEach(() => source.close());

async function publishedAndStopped(): Promise<void> {
  const capture = await source.started(['a']);
  await source.sql.query(`INSERT INTO a VALUES (1, 'x'), (2, 'x')`);
  await source.seenCount('a', 2);
  await capture.stop();
}

async function foldEqualsTable(): Promise<void> {
  const { rows } = await source.sql.query<{ id: number; b: string }>('SELECT * FROM a');
  const table = new Map(rows.map((row) => [String(row.id), JSON.stringify(row)]));
  await eventually(async () => expect(await source.fold('a')).toEqual(table));
}

describe('slot against position', () => {
  it('C29 refuses a slot that is ahead of the position', async () => {
    await publishedAndStopped();
    await source.sql.query(`INSERT INTO a VALUES (3, 'lost')`);
    await source.sql.query('SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())', [source.slot]);
    const before = await source.slotFacts();
    const records = await source.seen('a');
    await expect(source.started(['a'])).rejects.toMatchObject({
      code: 'CDC_SLOT_AHEAD',
      message: expect.stringMatching(new RegExp(`${before!.confirmed}.*position ends at .*snapshot`)),
    });
    expect(await source.slotFacts()).toEqual(before);
    expect(await source.seen('a')).toHaveLength(records.length);
    await source.started(['a'], { snapshot: 'when-needed' });
    await foldEqualsTable();
  });

  it('C31 refuses a missing slot, or takes a snapshot when needed', async () => {
    await publishedAndStopped();
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await source.sql.query(`DELETE FROM a WHERE id = 1; UPDATE a SET b = 'y'; INSERT INTO a VALUES (3, 'z')`);
    await expect(source.started(['a'])).rejects.toMatchObject({ code: 'CDC_SLOT_MISSING' });
    expect(await source.slotFacts()).toBeUndefined();
    await source.started(['a'], { snapshot: 'when-needed' });
    await foldEqualsTable();
  });

  it('C33 never applies a position to a slot that was made again', async () => {
    await publishedAndStopped();
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await source.sql.query(`INSERT INTO a VALUES (3, 'between')`);
    await source.sql.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [source.slot]);
    await expect(source.started(['a'])).rejects.toMatchObject({ code: 'CDC_SLOT_AHEAD' });
    await source.started(['a'], { snapshot: 'when-needed' });
    await foldEqualsTable();
  });

  it('C34 waits while another connection holds the slot and streams when it is free', async () => {
    await publishedAndStopped();
    const holder = await openReplicationSession(source.url, 'holder');
    holder
      .query(
        `START_REPLICATION SLOT "${source.slot}" LOGICAL 0/0 (proto_version '1', publication_names '"${source.slot}"')`,
      )
      .catch(() => {});
    const pid = await eventually(async () => {
      const found = (await source.slotFacts())?.pid;
      if (found == null) throw new Error('not held');
      return found;
    });
    const capture = await source.started(['a']);
    expect(capture.status().state).toBe('waiting');
    expect(source.messages.join('\n')).toContain(`pid ${pid}`);
    await source.sql.query(`INSERT INTO a VALUES (3, 'x')`);
    await source.sql.query('SELECT pg_terminate_backend($1)', [pid]);
    await source.seenCount('a', 3);
    expect(capture.status().state).toBe('streaming');
    await holder.end().catch(() => {});
  });

  it('lets a second instance wait and take over', async () => {
    const first = await source.started(['a']);
    const second = await source.started(['a']);
    expect(second.status().state).toBe('waiting');
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    await first.stop();
    await source.sql.query(`INSERT INTO a VALUES (2, 'x')`);
    const seen = await source.seenCount('a', 2);
    expect(seen.map(({ key }) => key)).toEqual(['1', '2']);
    expect(source.errors).toEqual([]);
  });

  it('C38 follows the WAL on an idle database, after a position that covers it', async () => {
    await source.started(['a']);
    const { rows } = await source.sql.query<{ lsn: string }>(
      `SELECT pg_logical_emit_message(false, 'noise', repeat('x', 10000)) AS noise, pg_switch_wal() AS lsn`,
    );
    await eventually(
      async () => expect(parseLsn((await source.slotFacts())!.confirmed) >= parseLsn(rows[0]!.lsn)).toBe(true),
      { timeoutMs: 30_000 },
    );
    const confirmed = parseLsn((await source.slotFacts())!.confirmed);
    expect((await source.positions()).at(-1)!.endLsn >= confirmed).toBe(true);
  });

  it('C40 never acknowledges more than the last committed position', async () => {
    const capture = await source.started(['a']);
    const writer = (async () => {
      for (let id = 0; id < 1_500; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
    })();
    const watcher = await source.client();
    for (let sample = 0; sample < 30; sample++) {
      const { rows } = await watcher.query<{ confirmed: string }>(
        'SELECT confirmed_flush_lsn AS confirmed FROM pg_replication_slots WHERE slot_name = $1',
        [source.slot],
      );
      const position = (await source.positions()).at(-1)!;
      expect(parseLsn(rows[0]!.confirmed) <= position.endLsn).toBe(true);
    }
    await writer;
    await source.seenCount('a', 1_500);
    await capture.stop();
  });

  it('commits and acknowledges at stop, and the next start repeats nothing', async () => {
    const capture = await source.started(['a']);
    const writing = (async () => {
      for (let id = 0; id < 500; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
    })();
    await source.seenCount('a', 50);
    await capture.stop();
    await source.slotFree();
    expect(parseLsn((await source.slotFacts())!.confirmed)).toBe((await source.positions()).at(-1)!.endLsn);
    await writing;
    const next = await source.started(['a']);
    expect(next.status().state).toBe('streaming');
    const seen = await source.seenCount('a', 500);
    expect(seen.map(({ key }) => key)).toEqual(Array.from({ length: 500 }, (_, id) => String(id)));
  });

  it('refuses another cluster behind the same address', async () => {
    await publishedAndStopped();
    const last = (await source.positions()).at(-1)!;
    const writer = source.log.writer({ transactionalId: `headwater.cdc.${source.name}` });
    await writer.fence();
    await writer.transact([
      positionRecord(`headwater.cdc.${source.name}.position`, source.name, { ...last, systemId: '12345' }),
    ]);
    await writer.close();
    await expect(source.started(['a'])).rejects.toMatchObject({
      code: 'CDC_OTHER_CLUSTER',
      facts: { found: last.systemId, expected: '12345' },
    });
  });
});
