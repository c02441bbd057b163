import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Database, ensureSchema } from '@headwater/core';
import type { LogRecord } from '@headwater/core';
import { eventually, seededRandom } from '@headwater/testing';
import type { Capture } from '../capture.js';
import { assertSame } from '../differential.testing.js';
import { formatLsn, parseLsn } from '../lsn.js';
import { Source } from '../source.testing.js';
import { InterleavedSession, LOAD_TABLES } from './interleaved-load.testing.js';

const TABLES = ['a', 'b', 't', 'd'];

let source: Source;
let database: Database;
beforeEach(async () => {
  source = await Source.open();
  database = new Database(source.url);
  await ensureSchema(database, [LOAD_TABLES]);
  // Everything above it is streamed while it is open: small, so that small transactions are large.
  await source.sql.query(
    `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ''64kB''', current_database()); END $$`,
  );
});
afterEach(async () => {
  await database.close();
  await source.close();
});

/** All of a record but where it lies. */
const plain = ({ partition, key, value, headers }: LogRecord) =>
  [
    partition,
    key?.toString(),
    value?.toString(),
    ...headers.map(([name, bytes]) => `${name}=${bytes?.toString()}`),
  ].join('\u0000');

describe('transactions that are streamed while they are open', () => {
  it('C05 C08 become the same records, byte for byte, as those that come whole', async () => {
    const seed = Number(process.env['HEADWATER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    const random = seededRandom(seed);
    const names = { whole: `${source.name}_whole`, streamed: source.name };
    const topicOf = (mode: string, table: string) => source.topic(`${mode}.${table}`);
    await source.topics(
      [
        'out',
        ...['whole', 'streamed'].flatMap((mode) => [...TABLES, 'schemas', 'position'].map((of) => `${mode}.${of}`)),
      ],
      1,
    );
    const start = (mode: 'whole' | 'streamed'): Promise<Capture> =>
      source.started([], {
        name: names[mode],
        tables: TABLES.map((table) => ({
          table: `public.${table}`,
          topic: topicOf(mode, table),
          toast: 'mark' as const,
        })),
        positionTopic: topicOf(mode, 'position'),
        schemasTopic: topicOf(mode, 'schemas'),
        truncate: 'tombstones',
        streaming: mode === 'whole' ? 'off' : 'on',
        snapshot: 'never',
        maxBatchRows: 500,
      });
    const [first, streamed] = [await start('whole'), await start('streamed')];
    await source.sql.query(`INSERT INTO a VALUES (-1, 0, 'the first versions of all tables are published with it')`);
    for (const mode of ['whole', 'streamed']) await source.seenCount(`${mode}.schemas`, TABLES.length);
    // Its slot holds everything from here on.
    await first.stop();
    const settled = async (capture: Capture) => {
      const end = await source.walLsn();
      const reached = () => {
        const { endLsn, state, lastError } = capture.status();
        if (parseLsn(endLsn!) < end) throw new Error(`${state} at ${endLsn} of ${formatLsn(end)}: ${lastError}`);
      };
      await eventually(reached, { timeoutMs: 60_000 });
    };
    try {
      const sessions = await Promise.all(
        [0, 1, 2].map(
          async (n) => new InterleavedSession(await source.client(), random.fork(), n, source.topic('out')),
        ),
      );
      for (let left = 450; left > 0; left--) await random.pick(sessions).step();
      for (const session of sessions) await session.finish('COMMIT');
      const { rows } = await source.sql.query<{ count: number }>(
        `SELECT stream_txns::int AS count FROM pg_stat_replication_slots WHERE slot_name = $1`,
        [source.slot],
      );
      await settled(streamed);
      const { state, lastError } = streamed.status();
      expect(state).toBe('streaming');
      // Seen on PostgreSQL 15, which then ended the connection: it decodes an open transaction while a TRUNCATE in it is rolled back.
      if (lastError !== undefined) expect(lastError).toMatch(/^could not map filen(ode|umber) ".*" to relation OID$/);
      await source.settled(['out']);
      const messages = await source.seen('out');
      const whole = await start('whole');
      await settled(whole);
      await source.settled([
        'out',
        ...['schemas', ...TABLES].flatMap((table) => [`whole.${table}`, `streamed.${table}`]),
      ]);
      const seen: Record<string, number> = {};
      for (const table of TABLES) {
        const [ours, theirs] = await Promise.all(['streamed', 'whole'].map((mode) => source.seen(`${mode}.${table}`)));
        seen[table] = theirs!.length;
        assertSame(
          ours!.map(({ record }) => plain(record)),
          theirs!.map(({ record }) => plain(record)),
          table,
        );
      }
      const all = await source.seen('out');
      assertSame(
        messages.map(({ record }) => plain(record)),
        all.slice(messages.length).map(({ record }) => plain(record)),
        'messages',
      );
      const versions = async (mode: string) =>
        // Of the first ones, where its stream began.
        (await source.seen(`${mode}.schemas`)).map(
          ({ key, value }) => `${key} ${JSON.stringify({ ...JSON.parse(value!), lsn: '' })}`,
        );
      assertSame(await versions('streamed'), await versions('whole'), 'versions');
      // It was worth it.
      expect(Math.min(...Object.values(seen), messages.length)).toBeGreaterThan(0);
      expect(rows[0]!.count).toBeGreaterThan(0);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }, 180_000);
});
