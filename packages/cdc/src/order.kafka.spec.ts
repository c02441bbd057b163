import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { partitionOf } from '@headwater/core';
import { eventually } from '@headwater/testing';
import { parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { positionRecord } from './position.js';
import { Source } from './source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
});
afterEach(() => source.close());

describe('order and transactions', () => {
  it('C01 writes an insert, an update and a delete of a row as upsert, upsert and tombstone', async () => {
    await source.topics(['a']);
    await source.started(['a']);
    const xids: string[] = [];
    for (const statement of [`INSERT INTO a VALUES (1, 'x')`, `UPDATE a SET b = 'y'`, 'DELETE FROM a']) {
      await source.sql.query('BEGIN');
      await source.sql.query(statement);
      const { rows } = await source.sql.query<{ xid: string }>(`SELECT pg_current_xact_id()::text AS xid`);
      xids.push(rows[0]!.xid);
      await source.sql.query('COMMIT');
    }
    const seen = await source.seenCount('a', 3);
    expect(seen.map(({ key, value, op, tx, seq }) => [key, value, op, tx, seq])).toEqual([
      ['1', '{"id":1,"b":"x"}', 'c', xids[0], 0],
      ['1', '{"id":1,"b":"y"}', 'u', xids[1], 0],
      ['1', undefined, 'd', xids[2], 0],
    ]);
    expect(seen[0]!.record.headers.find(([name]) => name === 'hw_table')?.[1]?.toString()).toBe('public.a');
    const lsns = seen.map(({ lsn }) => parseLsn(lsn ?? ''));
    expect(lsns[0]! < lsns[1]! && lsns[1]! < lsns[2]!).toBe(true);
  });

  it('C02 orders overlapping transactions by their commits', async () => {
    await source.topics(['a']);
    await source.started(['a']);
    const other = await source.client();
    await source.sql.query('BEGIN');
    await source.sql.query(`INSERT INTO a VALUES (1, 'early')`);
    await other.query(`INSERT INTO a VALUES (2, 'late')`);
    await source.sql.query('COMMIT');
    const seen = await source.seenCount('a', 2);
    expect(seen.map(({ key }) => key)).toEqual(['2', '1']);
    expect(parseLsn(seen[0]!.lsn!) < parseLsn(seen[1]!.lsn!)).toBe(true);
  });

  it('keeps adjacent commits apart and acknowledges the raw end LSN', async () => {
    await source.topics(['a']);
    let capture = await source.started(['a']);
    const sessions = await Promise.all([source.client(), source.client(), source.client(), source.client()]);
    let id = 0;
    let adjacent = false;
    for (let round = 0; round < 200 && !adjacent; round++) {
      await Promise.all(sessions.map((session) => session.query('BEGIN')));
      await Promise.all(sessions.map((session) => session.query(`INSERT INTO a VALUES (${++id}, 'x')`)));
      await Promise.all(sessions.map((session) => session.query('COMMIT')));
      if (round % 5 !== 4) continue;
      await source.seenCount('a', id);
      const positions = await source.positions();
      const lsns = new Set((await source.seen('a')).map(({ lsn }) => lsn));
      adjacent = positions.some(({ endLsn }) => [...lsns].some((lsn) => parseLsn(lsn ?? '0/0') === endLsn));
      await capture.stop();
      const last = (await source.positions()).at(-1)!;
      expect(parseLsn((await source.slotFacts())!.confirmed)).toBe(last.endLsn);
      capture = await source.started(['a']);
    }
    const seen = await source.seenCount('a', id);
    expect(new Set(seen.map(({ key }) => key)).size).toBe(id);
    expect(seen).toHaveLength(id);
    expect(adjacent).toBe(true);
  });

  it('C04 C08 numbers the rows of each transaction from 0 without a gap', async () => {
    await source.sql.query('CREATE TABLE c (id int PRIMARY KEY)');
    await source.topics(['a', 'c']);
    await source.started(['a', 'c']);
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 1000) g`);
    await source.sql.query('INSERT INTO c VALUES (1)');
    await source.sql.query(`BEGIN; INSERT INTO a VALUES (1001, ''); INSERT INTO c VALUES (2); COMMIT`);
    const all = [...(await source.seenCount('a', 1001)), ...(await source.seenCount('c', 2))];
    const perTx = new Map<string, number[]>();
    for (const { tx, seq } of all) perTx.set(tx!, [...(perTx.get(tx!) ?? []), seq]);
    const sorted = [...perTx.values()].map((seqs) => seqs.toSorted((x, y) => x - y));
    expect(sorted.map(({ length }) => length).toSorted((x, y) => x - y)).toEqual([1, 2, 1000]);
    for (const seqs of sorted) expect(seqs).toEqual(seqs.map((_, i) => i));
  });

  it('C05 writes nothing of what was rolled back, also to a savepoint', async () => {
    await source.topics(['a']);
    await source.started(['a']);
    await source.sql.query(`BEGIN; INSERT INTO a VALUES (1, 'no'); ROLLBACK`);
    const nested = Array.from(
      { length: 100 },
      (_, i) => `SAVEPOINT s${i}; INSERT INTO a VALUES (${i + 10}, 'n');`,
    ).join('');
    await source.sql.query(
      `BEGIN; INSERT INTO a VALUES (2, 'before'); SAVEPOINT s; INSERT INTO a VALUES (3, 'no'); ROLLBACK TO s;
       ${nested} ROLLBACK TO s50; INSERT INTO a VALUES (4, 'after'); COMMIT`,
    );
    const seen = await source.seenCount('a', 52);
    expect(seen.map(({ seq }) => seq)).toEqual(Array.from({ length: 52 }, (_, i) => i));
    expect(seen.map(({ key }) => key)).toEqual(['2', ...Array.from({ length: 50 }, (_, i) => String(i + 10)), '4']);
  });

  it('C07 keeps a key on one partition in commit order', async () => {
    await source.topics(['a'], 8);
    await source.sql.query(`INSERT INTO a SELECT g, '0' FROM generate_series(1, 50) g`);
    await source.started(['a']);
    const sessions = await Promise.all([source.client(), source.client(), source.client(), source.client()]);
    await Promise.all(
      sessions.map(async (session, s) => {
        for (let i = 0; i < 125; i++) {
          const ids = Array.from({ length: 10 }, (_, k) => ((i * 10 + k + s) % 50) + 1).toSorted((x, y) => x - y);
          await session
            .query(`UPDATE a SET b = (b::int + 1)::text WHERE id = ANY($1)`, [ids])
            .catch((error: { code?: string }) => {
              if (error.code !== '40P01') throw error;
            });
        }
      }),
    );
    const { rows } = await source.sql.query<{ total: string }>('SELECT sum(b::int)::text AS total FROM a');
    const seen = await source.seenCount('a', 50 + Number(rows[0]!.total));
    const partitions = new Map<string, Set<number>>();
    const versions = new Map<string, number[]>();
    for (const { key, value, record } of seen) {
      partitions.set(key!, (partitions.get(key!) ?? new Set()).add(record.partition));
      versions.set(key!, [...(versions.get(key!) ?? []), Number((JSON.parse(value!) as { b: string }).b)]);
    }
    for (const [key, set] of partitions) expect([...set]).toEqual([partitionOf(Buffer.from(key), 8)]);
    for (const list of versions.values()) expect(list).toEqual(list.map((_, i) => i));
    expect(seen).toHaveLength(50 + Number(rows[0]!.total));
  });

  it('C56 writes a changed key as tombstone and upsert', async () => {
    await source.sql.query('CREATE TABLE f (id int PRIMARY KEY, b text); ALTER TABLE f REPLICA IDENTITY FULL');
    await source.topics(['a', 'f']);
    await source.started(['a', 'f']);
    for (const table of ['a', 'f']) {
      await source.sql.query(`INSERT INTO ${table} VALUES (1, 'x')`);
      await source.sql.query(`UPDATE ${table} SET id = 2`);
      const seen = await source.seenCount(table, 3);
      expect(seen.slice(1).map(({ key, value, seq, op }) => [key, value, seq, op])).toEqual([
        ['1', undefined, 0, 'd'],
        ['2', '{"id":2,"b":"x"}', 1, 'u'],
      ]);
      expect(seen[1]!.tx).toBe(seen[2]!.tx);
    }
  });

  it('C25 reconnects when the walsender is terminated, once', async () => {
    await source.topics(['a']);
    const capture = await source.started(['a']);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    await source.sql.query('SELECT pg_terminate_backend($1)', [(await source.slotFacts())!.pid]);
    await source.sql.query(`INSERT INTO a VALUES (2, 'y')`);
    const seen = await source.seenCount('a', 2);
    expect(seen.map(({ key }) => key)).toEqual(['1', '2']);
    expect(capture.status().reconnects).toBe(1);
  });

  it('routes outbox messages of our prefix with their transaction', async () => {
    await source.topics(['a', 'out']);
    const capture = await source.started(['a']);
    const message = JSON.stringify({
      topic: source.topic('out'),
      key: 'k',
      value: '{"n":1}',
      headers: { ce_id: 'e1' },
    });
    const emit = (transactional: boolean) =>
      source.sql.query(`SELECT pg_logical_emit_message(${transactional}, 'headwater', $1)`, [message]);
    await source.sql.query('BEGIN');
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await emit(true);
    await source.sql.query('COMMIT');
    await source.sql.query('BEGIN');
    await emit(true);
    await emit(false);
    await source.sql.query('ROLLBACK');
    await source.sql.query(`SELECT pg_logical_emit_message(true, 'other', 'forged')`);
    const seen = await source.seenCount('out', 2);
    await capture.stop();
    await source.started(['a']);
    expect(await source.seen('out')).toHaveLength(2);
    expect(seen.map(({ key, value, seq }) => [key, value, seq])).toEqual([
      ['k', '{"n":1}', 1],
      ['k', '{"n":1}', 0],
    ]);
    expect(seen[0]!.tx).toBe((await source.seen('a'))[0]!.tx);
    expect(seen[0]!.record.headers.find(([name]) => name === 'ce_id')?.[1]?.toString()).toBe('e1');
    await eventually(() => expect(capture.status().ignoredMessages).toBe(1));
  });

  it('C100 counts foreign and forged messages, logs the LSN of the latter and goes on', async () => {
    await source.topics(['a']);
    const capture = await source.started(['a']);
    const role = `${source.name}_other`;
    await source.sql.query(`CREATE ROLE ${role}`);
    try {
      await source.sql.query(
        `BEGIN; INSERT INTO a VALUES (1, 'x'); SET LOCAL ROLE ${role};
         SELECT pg_logical_emit_message(true, 'other', 'foreign');
         SELECT pg_logical_emit_message(true, 'headwater', 'forged');
         RESET ROLE; INSERT INTO a VALUES (2, 'x'); COMMIT`,
      );
      await source.sql.query(
        `SET ROLE ${role}; SELECT pg_logical_emit_message(false, 'headwater', '{"topic": 1}'); RESET ROLE`,
      );
    } finally {
      await source.sql.query(`DROP ROLE ${role}`);
    }
    const end = await source.walLsn();
    const seen = await source.seenCount('a', 2);
    expect(seen.map(({ key, seq }) => [key, seq])).toEqual([
      ['1', 0],
      ['2', 1],
    ]);
    await eventually(() => expect(capture.status().ignoredMessages).toBe(3));
    expect(
      source.messages.filter((line) => /ignored.* at [0-9A-F]+\/[0-9A-F]+ is not an outbox/.test(line)),
    ).toHaveLength(2);
    await eventually(async () => {
      expect((await source.lastPosition()).endLsn >= end).toBe(true);
      expect(parseLsn((await source.slotFacts())!.confirmed) >= end).toBe(true);
    });
    expect(capture.status().state).toBe('streaming');
  });

  it('halts when another writer fenced its transactional id and published, and acknowledges nothing of it', async () => {
    await source.topics(['a']);
    const capture = await source.started(['a']);
    const writer = source.log.writer({ transactionalId: `headwater.cdc.${source.name}` });
    await eventually(async () => {
      // While it has only fenced, the capture may take the id back for a position of its own.
      await writer.fence();
      const position = await source.lastPosition();
      const further = { ...position, endLsn: (position.endLsn + 8n) as Lsn };
      const outcome = await writer.transact([positionRecord(source.positionTopic, source.name, further)]);
      expect(outcome).toMatchObject({ outcome: 'committed' });
    });
    const before = await source.walLsn();
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await expect(capture.finished).rejects.toMatchObject({ code: 'CDC_FENCED' });
    await writer.close();
    await source.slotFree();
    expect(capture.status().state).toBe('halted');
    expect(await source.seen('a')).toEqual([]);
    expect(parseLsn((await source.slotFacts())!.confirmed) <= before).toBe(true);
    expect(parseLsn((await source.slotFacts())!.confirmed) <= (await source.lastPosition()).endLsn).toBe(true);
  });

  it('halts with the cause when Postgres will always refuse', async () => {
    await source.topics(['a']);
    const role = `${source.name}_none`;
    await source.sql.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'p'`);
    try {
      const url = new URL(source.url);
      [url.username, url.password] = [role, 'wrong'];
      await expect(source.started(['a'], { connectionString: url.href })).rejects.toMatchObject({
        code: 'CDC_SERVER_NOT_READY',
        message: expect.stringContaining(`the password of role "${role}" is refused`),
        cause: { code: '28P01' },
      });
      url.password = 'p';
      await expect(source.started(['a'], { connectionString: url.href })).rejects.toMatchObject({
        code: 'CDC_SERVER_NOT_READY',
        message: expect.stringContaining(`GRANT SELECT ON public.a TO "${role}"`),
      });
    } finally {
      await source.sql.query(`DROP ROLE ${role}`);
    }
  });
});
