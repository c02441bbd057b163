import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { eventually } from './eventually.js';
import { postgresFaultProxy, type PostgresFaultProxy } from './postgres-fault-proxy.js';
import { testDatabase, type TestDatabase } from './test-database.js';

let database: TestDatabase;
let proxy: PostgresFaultProxy;
let direct: pg.Client;
let through: pg.Client;

beforeEach(async () => {
  database = await testDatabase(process.env['DATABASE_URL']!);
  proxy = await postgresFaultProxy(database.url);
  [direct, through] = [await client(database.url), await client(proxy.url)];
  await direct.query('CREATE TABLE t (n int)');
});
afterEach(async () => {
  await proxy.close();
  await Promise.all([direct.end(), through.end().catch(() => undefined)]);
  await database.drop();
});

async function client(url: string): Promise<pg.Client> {
  const one = new pg.Client({ connectionString: url });
  one.on('error', () => undefined);
  await one.connect();
  return one;
}

const rows = async (): Promise<number[]> =>
  (await direct.query<{ n: number }>('SELECT n FROM t ORDER BY n')).rows.map(({ n }) => n);

describe('a COMMIT', () => {
  it.each([
    { lost: 'answer', from: 'server', rest: [1] },
    { lost: 'request', from: 'client', rest: [] },
  ] as const)('whose $lost is lost fails for the client', async ({ from, rest }) => {
    await through.query('BEGIN');
    await through.query('INSERT INTO t VALUES ($1)', [1]);
    proxy.decide = (message) =>
      message.from === from && message.statement === 'COMMIT' ? { act: 'close' } : undefined;
    await expect(through.query('COMMIT')).rejects.toThrow('terminated');
    expect(proxy.log).toHaveLength(1);
    expect(await rows()).toEqual(rest);
  });

  it('can be held, and reach the server after its client is gone', async () => {
    const { pid } = (await through.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]!;
    await through.query('BEGIN');
    await through.query('INSERT INTO t VALUES (1)');
    proxy.decide = ({ from, statement }) => (from === 'client' && statement === 'COMMIT' ? { act: 'hold' } : undefined);
    const committing = through.query('COMMIT').catch((error: unknown) => error);
    await proxy.strikes(1);
    proxy.cutAll();
    expect(String(await committing)).toContain('terminated');
    expect(await rows()).toEqual([]);
    await proxy.release();
    // The server ends the session when it has done what it was sent.
    await eventually(async () =>
      expect((await direct.query('SELECT FROM pg_stat_activity WHERE pid = $1', [pid])).rowCount).toBe(0),
    );
    expect(await rows()).toEqual([1]);
  });
});

it('sees parses, and lets everything else pass as it is', async () => {
  const parsed: string[] = [];
  proxy.decide = ({ from, type, statement }) => {
    if (from === 'client' && type === 'P') parsed.push(statement);
    return undefined;
  };
  expect((await through.query('SELECT $1::text AS a', ['é'])).rows).toEqual([{ a: 'é' }]);
  expect(parsed).toEqual(['SELECT $1::text AS a']);
});
