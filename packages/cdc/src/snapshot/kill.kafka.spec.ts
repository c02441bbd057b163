import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import { brokers, Source } from '../source.testing.js';

const END_TXN = 26;
const ROWS = 8_000;
const CHUNK = 20;

let source: Source;
let kafka: FaultProxy;
let child: ChildProcess | undefined;

beforeEach(async () => {
  source = await Source.open();
  await source.sql.query(
    `CREATE TABLE a (id int PRIMARY KEY, b text); INSERT INTO a SELECT g, '0' FROM generate_series(1, ${ROWS}) g`,
  );
  await source.topics(['a'], 2);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
  // So that a kill finds some chunks published and others not.
  kafka.decide = ({ apiKey }) => (apiKey === END_TXN ? { at: 'request', act: 'delay', ms: 100 } : undefined);
});
afterEach(async () => {
  await kill();
  await kafka.close();
  await source.close();
});

function run(): void {
  const { log: _log, onError: _onError, logger: _logger, ...options } = source.options(['a']);
  const script = fileURLToPath(new URL('../crash-child.testing.mjs', import.meta.url));
  const given = { ...options, brokers, kafkaPort: kafka.port, snapshotChunkRows: CHUNK };
  child = spawn(process.execPath, [script, JSON.stringify(given)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
}

async function kill(): Promise<void> {
  const dying = child;
  child = undefined;
  if (dying === undefined || dying.exitCode !== null || dying.signalCode !== null) return;
  const gone = new Promise((resolve) => dying.once('exit', resolve));
  dying.kill('SIGKILL');
  await gone;
}

describe('a snapshot whose process is killed', () => {
  it('C43 C104 goes on behind its cursor, no row twice and no key back in time, and leaves nothing on the source', async () => {
    const writer = await source.client();
    let writing = true;
    const writes = (async () => {
      for (let n = 0; writing; n++) {
        // Every third row: of the others only the snapshot tells.
        const id = 1 + ((n * 7_919 * 3) % ROWS);
        await writer.query(`UPDATE a SET b = (b::int + 1)::text WHERE id = ${id}`);
      }
    })();
    let [kills, reads] = [0, 0];
    const readRows = async () => (await source.seen('a')).filter(({ op }) => op === 'r');
    const unfinished = async () => (await source.lastPosition()).snapshots.length > 0;
    try {
      run();
      await eventually(async () => expect(await unfinished()).toBe(true), { timeoutMs: 30_000 });
      while (await unfinished()) {
        await eventually(
          async () => {
            const now = (await readRows()).length;
            if (now === reads && (await unfinished())) throw new Error(`no chunk after ${now} rows`);
            reads = now;
          },
          { timeoutMs: 30_000 },
        );
        if (!(await unfinished())) break;
        await kill();
        kills += 1;
        if (kills === 1) await leavesNothing();
        run();
      }
    } finally {
      writing = false;
      await writes;
    }
    await source.foldEqualsTable();
    expect(kills).toBeGreaterThanOrEqual(3);
    const rows = await readRows();
    expect(new Set(rows.map(({ key }) => key)).size).toBe(rows.length);
    const all = await source.seen('a');
    expect(new Set(all.map(({ tx, seq }) => `${tx} ${seq}`)).size).toBe(all.length);
    const versions = new Map<string, number>();
    for (const { key, value } of all) {
      const version = Number((JSON.parse(value!) as { b: string }).b);
      expect([key, version >= (versions.get(key!) ?? 0)]).toEqual([key, true]);
      versions.set(key!, version);
    }
    expect(versions.size).toBe(ROWS);
  });
});

/** No session of the capture that holds anything, and no slot but its own. */
async function leavesNothing(): Promise<void> {
  await eventually(
    async () => {
      const { rows: sessions } = await source.sql.query(
        `SELECT pid, state, backend_xmin FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()`,
        [`headwater.cdc.${source.name}`],
      );
      const { rows: slots } = await source.sql.query<{ name: string }>(
        'SELECT slot_name AS name FROM pg_replication_slots WHERE database = current_database() AND (temporary OR active OR slot_name <> $1)',
        [source.slot],
      );
      expect([sessions, slots]).toEqual([[], []]);
    },
    { timeoutMs: 30_000 },
  );
}
