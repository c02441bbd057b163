import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Source } from '../source.testing.js';

let source: Source;
let directory: string;
beforeEach(async () => {
  source = await Source.open();
  directory = await mkdtemp(join(tmpdir(), 'spools-'));
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await workMemory('64kB');
  await source.topics(['a', 'out'], 2);
});
afterEach(async () => {
  await source.close();
  await rm(directory, { recursive: true, force: true });
});

/** What a transaction may have in the server's memory before it is streamed, or kept on the server's disk. */
async function workMemory(size: string): Promise<void> {
  await source.sql.query(
    `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ''${size}''', current_database()); END $$`,
  );
}

const streaming = () => ({ streaming: 'on', spoolDirectory: directory, snapshot: 'never' }) as const;

const rows = (from: number, to: number) =>
  `INSERT INTO a SELECT g, repeat('x', 200) FROM generate_series(${from}, ${to}) g`;
const keys = async (count: number) =>
  (await source.seenCount('a', count)).map(({ key }) => Number(key)).toSorted((x, y) => x - y);
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe('streamed transactions', () => {
  it.each(['off', 'on'] as const)(
    'C05 passes by what was rolled back before the server had decoded it, streaming %s',
    async (mode) => {
      const capture = await source.started(['a'], { ...streaming(), streaming: mode });
      await capture.stop();
      await source.slotFree();
      // PostgreSQL 18 looks up what it is short of memory for, and tells of an abort whatever the protocol.
      await source.sql.query(
        `BEGIN; ${rows(1, 10)}; SAVEPOINT s; ${rows(11, 2_000)}; ROLLBACK TO s; ${rows(3_001, 3_010)}; COMMIT`,
      );
      await source.sql.query(`BEGIN; ${rows(4_001, 6_000)}; ROLLBACK`);
      await source.sql.query(rows(7_001, 7_001));
      const again = await source.started(['a'], { ...streaming(), streaming: mode });
      expect(await keys(21)).toEqual([...range(1, 10), ...range(3_001, 3_010), 7_001]);
      expect(again.status()).toMatchObject({ state: 'streaming', reconnects: 0 });
    },
  );
});
