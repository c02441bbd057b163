import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Database, emitContext, emitText, ensureSchema, headerText } from '@headwater/core';
import type { Sql, TextMessage } from '@headwater/core';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy, ProxiedRequest } from '@headwater/testing';
import type { CaptureProcess } from './capture-process.testing.js';
import { parseLsn } from './lsn.js';
import { postgresProxy } from './postgres-proxy.testing.js';
import type { PostgresProxy } from './postgres-proxy.testing.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;
const END_TXN = 26;

let source: Source;
let database: Database;
let kafka: FaultProxy;
let postgres: PostgresProxy | undefined;
let child: CaptureProcess;

beforeEach(async () => {
  source = await Source.open();
  database = new Database(source.url);
  await ensureSchema(database, ['CREATE TABLE a (id int PRIMARY KEY, b text)']);
  await source.topics(['a', 'out']);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
});
afterEach(async () => {
  await database.close();
  await source.close();
  await kafka.close();
  await postgres?.close();
  postgres = undefined;
});

async function run(connectionString = source.url): Promise<void> {
  child = await source.process(['a'], { connectionString, kafkaPort: kafka.port });
}

const kill = () => child.kill();

function message(key: string, headers: Readonly<Record<string, string>> = {}): TextMessage {
  return { topic: source.topic('out'), key, value: JSON.stringify({ key }), headers };
}

/** Published also when its transaction rolls back. */
async function emitNowText(sql: Sql, { topic, key, value, headers }: TextMessage): Promise<void> {
  await sql.query('SELECT headwater.emit_now($1, $2, $3, $4)::text', [topic, key, value, JSON.stringify(headers)]);
}

const undone = new Error('undone');

describe('messages across a kill', () => {
  const strike = (api: number) => () => {
    kafka.decide = ({ apiKey }) => (apiKey === api ? { at: 'request', act: 'drop' } : undefined);
    return () => eventually(() => expect(kafka.log.length).toBeGreaterThan(0));
  };
  const faults = {
    'before anything is produced (C11)': strike(PRODUCE),
    'after Produce and before the commit (C12)': strike(END_TXN),
    'after the commit and before the ack (C13)': () => {
      postgres!.dropStatus = true;
      return () => source.seenCount('out', 3);
    },
  };

  it.each(Object.entries(faults))(
    'C76 a transactional one is seen once with its transaction, another once whatever becomes of it: killed %s',
    async (_moment, fault) => {
      postgres = await postgresProxy(source.url);
      await run(postgres.url);
      const struck = fault();
      await database.transaction(async (sql) => {
        await sql.query(`INSERT INTO a VALUES (1, 'x')`);
        await emitText(sql, message('with rows'));
        await emitNowText(sql, message('at once'));
      });
      const rolledBack = database.transaction(async (sql) => {
        await sql.query(`INSERT INTO a VALUES (2, 'x')`);
        await emitText(sql, message('never'));
        await emitNowText(sql, message('in spite of the rollback'));
        throw undone;
      });
      await expect(rolledBack).rejects.toBe(undone);
      // A commit flushes the WAL before it, on servers whose emit cannot.
      await database.query(`INSERT INTO a VALUES (3, 'x')`);
      await struck();
      await kill();
      kafka.decide = () => undefined;
      postgres.dropStatus = false;
      await source.slotFree();
      await run(postgres.url);
      await database.transaction((sql) => emitText(sql, message('after')));
      await eventually(async () => expect((await source.seen('out')).map(({ key }) => key)).toContain('after'), {
        timeoutMs: 30_000,
      });
      const out = await source.seen('out');
      expect(out.map(({ key }) => key)).toEqual(['at once', 'with rows', 'in spite of the rollback', 'after']);
      const rows = await source.seen('a');
      expect(rows.map(({ key }) => key)).toEqual(['1', '3']);
      expect([out[1]!.tx, out[1]!.seq]).toEqual([rows[0]!.tx, 1]);
    },
  );

  it('C77 a routed one keeps its ce_id on every redelivery and shares the log transaction of its rows', async () => {
    await source.sql.query(`INSERT INTO a VALUES (1, 'before')`);
    await run();
    await source.seenCount('a', 1);
    const requests: ProxiedRequest[] = [];
    kafka.decide = (request) => {
      requests.push(request);
      // Positions of an idle capture are committed as well: the commit meant here comes after the message.
      const isSent = requests.some(({ apiKey, frame }) => apiKey === PRODUCE && frame.includes(source.topic('out')));
      return request.apiKey === END_TXN && isSent ? { at: 'request', act: 'drop' } : undefined;
    };
    const id = randomUUID();
    await database.transaction(async (sql) => {
      await sql.query(`UPDATE a SET b = 'after'`);
      await emitText(sql, message('k', { ce_id: id, ce_type: 'Said', ce_source: 'test', ce_specversion: '1.0' }));
    });
    await eventually(() => expect(kafka.log.length).toBeGreaterThan(0));
    await kill();
    // Both had been sent under the one commit that never came.
    const commit = requests.findIndex(({ n }) => n === kafka.log[0]!.request.n);
    const sent = requests.slice(0, commit).filter(({ apiKey }) => apiKey === PRODUCE);
    expect(sent.some(({ frame }) => frame.includes(source.topic('out')))).toBe(true);
    expect(sent.some(({ frame }) => frame.includes(source.topic('a')))).toBe(true);
    expect([await source.seen('out'), (await source.seen('a')).length]).toEqual([[], 1]);
    kafka.decide = () => undefined;
    await run();
    const [out] = await source.seenCount('out', 1, 30_000);
    await kill();
    await source.slotFree();
    await run();
    await database.transaction((sql) => emitText(sql, message('next')));
    const all = await source.seenCount('out', 2, 30_000);
    expect(all.map(({ key }) => key)).toEqual(['k', 'next']);
    const headers = Object.fromEntries(out!.record.headers.map(([name, text]) => [name, text?.toString()]));
    expect(headers).toMatchObject({
      ce_id: id,
      ce_type: 'Said',
      ce_source: 'test',
      ce_specversion: '1.0',
      hw_seq: '1',
    });
    const rows = await source.seen('a');
    expect(rows.map(({ value }) => value)).toEqual(['{"id":1,"b":"before"}', '{"id":1,"b":"after"}']);
    expect(out!.tx).toBe(rows[1]!.tx);
  });
});

describe('the outbox in the database', () => {
  it('C99 refuses a message larger than the log takes inside of the transaction of its rows', async () => {
    await source.started(['a']);
    const big = { ...message('k'), value: 'ü'.repeat(1_000_000) };
    const refused = database.transaction(async (sql) => {
      await sql.query(`INSERT INTO a VALUES (1, 'x')`);
      await emitText(sql, big);
    });
    await expect(refused).rejects.toMatchObject({
      code: 'OUTBOX_MESSAGE_TOO_LARGE',
      message: expect.stringMatching(/ 2000003 bytes, the limit is 990000\..*max_bytes/),
    });
    await database.transaction(async (sql) => {
      await emitText(sql, { ...message('largest'), value: 'x'.repeat(990_000 - 'largest{}'.length) });
    });
    const out = await source.seenCount('out', 1);
    expect(out[0]!.value).toHaveLength(990_000 - 'largest{}'.length);
    expect((await database.query('SELECT FROM a')).rows).toEqual([]);
    expect(await source.seen('a')).toEqual([]);
  });

  it('C100 routes only what the outbox of this database has signed for this transaction', async () => {
    const capture = await source.started(['a']);
    const role = `${source.name}_app`;
    const content = JSON.stringify(message('forged'));
    await source.sql.query(`CREATE ROLE ${role}; GRANT USAGE ON SCHEMA headwater TO ${role}`);
    await source.sql.query(`SELECT pg_create_logical_replication_slot('spy_${source.name}', 'test_decoding')`);
    try {
      await database.transaction((sql) => emitText(sql, message('genuine')));
      // What one that reads the WAL could copy: the whole signed message.
      const { rows } = await source.sql.query<{ copy: string }>(
        `SELECT substring(data from 'content:(.*)$') AS copy
           FROM pg_logical_slot_get_changes('spy_${source.name}', NULL, NULL) WHERE data LIKE 'message:%'`,
      );
      expect(rows[0]!.copy).toMatch(/^v1\.[0-9a-f]{64} \{/);
      await source.sql.query(`SET ROLE ${role}`);
      for (const forged of [content, rows[0]!.copy, `v1.${'0'.repeat(64)} ${content}`]) {
        await source.sql.query(`SELECT pg_logical_emit_message(true, 'headwater', $1::text)`, [forged]);
        await source.sql.query(`SELECT pg_logical_emit_message(false, 'headwater', $1::text)`, [forged]);
      }
      await source.sql.query(`SELECT pg_logical_emit_message(true, 'headwater.ctx', '{"hw_actor":"forged"}')`);
      await source.sql.query(`SELECT pg_logical_emit_message(true, 'other', 'foreign')`);
      for (const statement of [
        `SELECT headwater.emit('t', 'k', 'v', '{}')`,
        `SELECT headwater.emit_now('t', 'k', 'v', '{}')`,
        `SELECT headwater.emit_checked(true, 't', 'k', 'v', '{}')`,
        `SELECT headwater.emit_signed(true, 'headwater', '{}')`,
        `SELECT headwater.context('{}')`,
        'SELECT inner_pad FROM headwater.outbox_key',
      ]) {
        await expect(source.sql.query(statement)).rejects.toMatchObject({ code: '42501' });
      }
      await source.sql.query('RESET ROLE');
      // With the right to emit a role needs no other, and what stands in its search path is not asked.
      await source.sql.query(
        `GRANT EXECUTE ON FUNCTION headwater.emit(text, text, text, jsonb) TO ${role};
         CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO ${role};
         CREATE FUNCTION trap.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT ''::bytea $$;
         SET ROLE ${role}; SET search_path = trap, pg_catalog`,
      );
      const { topic, key, value } = message('granted');
      await source.sql.query('SELECT headwater.emit($1, $2, $3, NULL)', [topic, key, value]);
    } finally {
      await source.sql.query('RESET ROLE; RESET search_path');
      await source.sql.query(
        `SELECT pg_drop_replication_slot('spy_${source.name}'); DROP OWNED BY ${role}; DROP ROLE ${role}`,
      );
    }
    const end = await source.walLsn();
    expect((await source.seenCount('out', 2)).map(({ key }) => key)).toEqual(['genuine', 'granted']);
    await eventually(() => expect(capture.status().ignoredMessages).toBe(8));
    expect(source.messages.filter((line) => line.includes('signature of the outbox'))).toHaveLength(7);
    await eventually(async () => {
      expect((await source.lastPosition()).endLsn >= end).toBe(true);
      expect(parseLsn((await source.slotFacts())!.confirmed) >= end).toBe(true);
    });
  });

  it('tells what of a message is wrong, and refuses a capture that may not read the key', async () => {
    for (const wrong of [
      { ...message('k'), topic: 'headwater.cdc.x.position' },
      { ...message('k'), topic: '' },
      { ...message('k'), headers: { hw_lsn: '0/0' } },
      { ...message('k'), headers: { n: 1 } as unknown as Record<string, string> },
    ]) {
      await expect(database.transaction((sql) => emitText(sql, wrong))).rejects.toMatchObject({
        code: 'OUTBOX_MESSAGE_INVALID',
      });
    }
    const contexts: Record<string, string>[] = [{ hw_op: 'c' }, { other: 'x' }, { hw_actor: 'x'.repeat(1_100) }];
    for (const fields of contexts) {
      await expect(database.transaction((sql) => emitContext(sql, fields))).rejects.toMatchObject({
        code: 'OUTBOX_MESSAGE_INVALID',
      });
    }
    const role = `${source.name}_capture`;
    await source.sql.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'p'`);
    try {
      const url = new URL(source.url);
      [url.username, url.password] = [role, 'p'];
      await expect(source.started(['a'], { connectionString: url.href })).rejects.toMatchObject({
        code: 'CDC_SERVER_NOT_READY',
        message: expect.stringContaining('GRANT SELECT ON headwater.outbox_key'),
      });
    } finally {
      await source.sql.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    }
  });
});

describe('the context of a transaction', () => {
  it('C106 is on all records of its transaction and of no other', async () => {
    const capture = await source.started(['a']);
    const trace = (n: number) => ({
      traceparent: `00-${'0'.repeat(31)}${n}-${'0'.repeat(15)}1-01`,
      hw_actor: `user ${n}`,
    });
    const other = await source.client();
    await source.sql.query('BEGIN');
    await emitContext(source.sql as unknown as Sql, trace(1));
    await source.sql.query(`INSERT INTO a VALUES (1, 'x'), (2, 'x'); UPDATE a SET id = 3 WHERE id = 2`);
    await other.query('BEGIN');
    await emitContext(other as unknown as Sql, trace(2));
    await other.query(`INSERT INTO a VALUES (10, 'x')`);
    await emitText(source.sql as unknown as Sql, message('m', { hw_actor: 'of its own' }));
    await other.query('COMMIT');
    await source.sql.query('COMMIT');
    await source.sql.query(`INSERT INTO a VALUES (20, 'x')`);
    // Undone with its savepoint, and one that comes too late.
    await source.sql.query('BEGIN; SAVEPOINT s');
    await emitContext(source.sql as unknown as Sql, trace(3));
    await source.sql.query(`ROLLBACK TO s; INSERT INTO a VALUES (30, 'x')`);
    await emitContext(source.sql as unknown as Sql, trace(4));
    await source.sql.query(`INSERT INTO a VALUES (31, 'x'); COMMIT`);
    const seen = await source.seenCount('a', 8);
    const found = [...seen, ...(await source.seen('out'))].map(({ key, op, record: { headers } }) => [
      `${key} ${op ?? 'message'}`,
      headerText(headers, 'traceparent')?.slice(34, 35),
      headerText(headers, 'hw_actor'),
    ]);
    expect(found).toEqual([
      ['10 c', '2', 'user 2'],
      ['1 c', '1', 'user 1'],
      ['2 c', '1', 'user 1'],
      ['2 d', '1', 'user 1'],
      ['3 u', '1', 'user 1'],
      ['20 c', undefined, undefined],
      ['30 c', undefined, undefined],
      ['31 c', undefined, undefined],
      ['m message', '1', 'of its own'],
    ]);
    const [message_] = await source.seen('out');
    expect(message_!.record.headers.filter(([name]) => name === 'hw_actor')).toHaveLength(1);
    await eventually(() => expect(capture.status().ignoredMessages).toBe(1));
    expect(source.messages.some((line) => /ignored.*headwater\.ctx.*must come first/.test(line))).toBe(true);
  });
});
