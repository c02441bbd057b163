import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { devServices, eventually, postgresFaultProxy } from '@headwater/testing';
import type { DevServices, PostgresFaultProxy } from '@headwater/testing';
import type { Capture } from '../capture.js';
import { Source } from '../source.testing.js';
import type { Seen } from '../source.testing.js';
import { WATERMARK_PREFIX } from '../snapshot-window.js';

let source: Source;
let proxy: PostgresFaultProxy;

async function open(serverUrl?: string): Promise<void> {
  source = await Source.open(serverUrl);
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
  proxy = await postgresFaultProxy(source.url);
}

afterEach(async () => {
  proxy.decide = () => undefined;
  await proxy.release();
  await source.close();
  await proxy.close();
});

/** Keeps the session that reads from writing this mark. */
function holdMark(window: number, side: 'low' | 'high'): void {
  proxy.decide = ({ from, frame }) =>
    from === 'client' && frame.includes(WATERMARK_PREFIX) && frame.includes(`,${window},"${side}"]`)
      ? { act: 'hold' }
      : undefined;
}

async function held(times = 1): Promise<void> {
  const holds = () => proxy.log.filter(({ act }) => act === 'hold');
  await eventually(() => expect(holds()).toHaveLength(times), { timeoutMs: 15_000 });
}

async function letGo(): Promise<void> {
  proxy.decide = () => undefined;
  await proxy.release();
}

async function over(capture: Capture): Promise<void> {
  await eventually(() => expect(capture.status().snapshots).toEqual([]), { timeoutMs: 30_000 });
}

const story = (seen: readonly Seen[], key: string) =>
  seen
    .filter((record) => record.key === key)
    .map(({ op, value }) => `${op} ${value === undefined ? '' : (JSON.parse(value) as { b: string }).b}`);

describe('between the marks', () => {
  beforeEach(() => open());

  it('C44 C45 leaves a row that was updated, deleted or given another key to the stream', async () => {
    await source.sql.query(`INSERT INTO a SELECT g, 'old' FROM generate_series(1, 9) g`);
    const capture = await source.started(['a'], { connectionString: proxy.url });
    // The stream has told the shape of the table: not another one between the marks.
    await source.sql.query('UPDATE a SET id = id WHERE id = 9');
    const before = new Set((await source.seenCount('a', 10)).map(({ tx }) => tx));
    const since = async () => (await source.seen('a')).filter(({ tx }) => !before.has(tx));
    holdMark(2, 'high');
    await capture.snapshot({ tables: ['public.a'] });
    await held();
    // Read already; now they change.
    await source.sql.query(`UPDATE a SET b = 'new' WHERE id = 3`);
    await source.sql.query('DELETE FROM a WHERE id = 5');
    await source.sql.query('UPDATE a SET id = 77 WHERE id = 7');
    await source.sql.query(`INSERT INTO a VALUES (8000, 'born')`);
    await eventually(async () => expect(await since()).toHaveLength(5));
    // Marks of other lives, and of nobody.
    for (const forged of [`["${source.name}","other",1,"high"]`, 'x', '[]', `["${source.name}"]`])
      await source.sql.query('SELECT pg_logical_emit_message(false, $1, $2)', [WATERMARK_PREFIX, forged]);
    await letGo();
    await over(capture);
    await source.settled(['a']);
    const seen = await since();
    expect(['1', '3', '5', '7', '77', '8000'].map((key) => story(seen, key))).toEqual([
      ['r old'],
      ['u new'],
      ['d '],
      ['d '],
      ['u old'],
      ['c born'],
    ]);
    const reads = seen.filter(({ op }) => op === 'r');
    expect(reads.map(({ seq }) => seq)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(new Set(reads.map(({ tx }) => tx))).toEqual(new Set([`snapshot-${reads[0]!.lsn}`]));
    await source.foldEqualsTable();
    expect(source.errors).toEqual([]);
  });

  it('reads a chunk again when the table gets a new column', async () => {
    await source.sql.query(`INSERT INTO a SELECT g, 'old' FROM generate_series(1, 9) g`);
    holdMark(1, 'high');
    const capture = source.capture(['a'], { connectionString: proxy.url });
    const started = capture.start();
    await held();
    await source.sql.query(`ALTER TABLE a ADD c int DEFAULT 7; INSERT INTO a VALUES (100, 'x', 1)`);
    await source.seenCount('a', 1);
    await letGo();
    await started;
    await source.settled(['a']);
    const reads = (await source.seen('a')).filter(({ op }) => op === 'r');
    expect(reads.map(({ value }) => value)).toContain('{"id":1,"b":"old","c":7}');
    expect(reads.filter(({ value }) => !value!.includes('"c"'))).toEqual([]);
  });

  it('C61 publishes nothing of a chunk whose table was truncated after it was read', async () => {
    await source.sql.query(`INSERT INTO a SELECT g, 'old' FROM generate_series(1, 9) g`);
    // No keys are told, only that the table is empty.
    const capture = await source.started(['a'], { connectionString: proxy.url, truncate: 'marker' });
    await source.sql.query('UPDATE a SET id = id WHERE id = 9');
    const before = new Set((await source.seenCount('a', 10)).map(({ tx }) => tx));
    holdMark(2, 'high');
    await capture.snapshot({ tables: ['public.a'] });
    await held();
    // And nothing more, that would tell its shape again.
    await source.sql.query('TRUNCATE a');
    await eventually(async () => expect((await source.seen('a')).at(-1)!.op).toBe('t'));
    await letGo();
    await over(capture);
    await source.settled(['a']);
    expect((await source.seen('a')).filter(({ op, tx }) => op === 'r' && !before.has(tx))).toEqual([]);
  });

  it('C31 buries the keys that a table has lost, and none that comes back meanwhile', async () => {
    await source.sql.query(`INSERT INTO a SELECT g, 'old' FROM generate_series(1, 6) g`);
    const first = await source.started(['a']);
    await first.stop();
    await source.slotFree();
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await source.sql.query('DELETE FROM a WHERE id IN (2, 3)');
    holdMark(1, 'high');
    const second = source.capture(['a'], { snapshot: 'when-needed', connectionString: proxy.url });
    const started = second.start();
    await held();
    // Tells the shape of the table, so that the first chunk is read again. The third window is that of the keys.
    await source.sql.query(`UPDATE a SET b = 'new' WHERE id = 1`);
    await eventually(async () => expect(story(await source.seen('a'), '1')).toEqual(['r old', 'u new']));
    holdMark(3, 'high');
    await proxy.release();
    await held(2);
    await source.sql.query(`INSERT INTO a VALUES (3, 'back')`);
    await eventually(async () => expect(story(await source.seen('a'), '3')).toEqual(['r old', 'c back']));
    await letGo();
    await started;
    await source.settled(['a']);
    const seen = await source.seen('a');
    expect(['1', '2', '3'].map((key) => story(seen, key))).toEqual([
      ['r old', 'u new'],
      ['r old', 'd '],
      ['r old', 'c back'],
    ]);
    const [buried] = seen.filter(({ op }) => op === 'd');
    expect([buried!.tx, buried!.seq]).toEqual([`snapshot-${buried!.lsn}`, 0]);
    await source.foldEqualsTable();
  });

  it('C48 pauses, resumes and stops in the middle of a table, also across a restart', async () => {
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 200) g`);
    const options = { connectionString: proxy.url, snapshotChunkRows: 10, snapshotWorkers: 1 };
    const first = await source.started(['a'], options);
    await source.settled(['a']);
    const initial = new Set((await source.seen('a')).map(({ tx }) => tx));
    const again = async () => (await source.seen('a')).filter(({ op, tx }) => op === 'r' && !initial.has(tx));
    const streams = async (id: number) => {
      await source.sql.query(`INSERT INTO a VALUES (${id}, 'live')`);
      await eventually(async () => expect((await source.fold('a')).has(String(id))).toBe(true));
    };
    const windows = 20;
    holdMark(windows + 5, 'high');
    await first.snapshot({ id: 'one', tables: ['public.a'] });
    await held();
    await first.pauseSnapshot('one');
    await letGo();
    await source.settled(['a']);
    const [paused] = first.status().snapshots;
    expect(paused).toMatchObject({ id: 'one', state: 'paused', cause: 'asked' });
    const before = (await again()).length;
    expect([before % 10, before > 0, before < 200]).toEqual([0, true, true]);
    await streams(1_000);
    await first.stop();
    const second = await source.started(['a'], options);
    await streams(1_001);
    await eventually(() =>
      expect(second.status().snapshots).toMatchObject([{ id: 'one', state: 'paused', rows: before }]),
    );
    expect(await again()).toHaveLength(before);
    await second.resumeSnapshot('one');
    await over(second);
    await source.settled(['a']);
    const reads = (await again()).map(({ key }) => Number(key));
    expect(reads.filter((id) => id <= 200).toSorted((x, y) => x - y)).toEqual(
      Array.from({ length: 200 }, (_, i) => i + 1),
    );

    for (const { tx } of await source.seen('a')) initial.add(tx);
    proxy.decide = ({ from, frame }) =>
      from === 'client' && /,(\d+),"high"\]/.test(frame.toString('latin1')) ? { act: 'delay', ms: 60 } : undefined;
    await second.snapshot({ id: 'two', tables: ['public.a'] });
    await eventually(async () => expect((await again()).length).toBeGreaterThan(0));
    await second.stopSnapshot('two');
    await letGo();
    await source.settled(['a']);
    const rest = (await again()).length;
    expect([second.status().snapshots, rest % 10, rest < 200]).toEqual([[], 0, true]);
    await streams(1_002);
    await second.stop();
    const third = await source.started(['a'], options);
    await streams(1_003);
    expect([third.status().snapshots, (await again()).length]).toEqual([[], rest]);
    await source.foldEqualsTable();
  });
});

describe('a commit that is in the WAL and that nobody sees', () => {
  // Named so that npm test sweeps it after a kill.
  const directory = resolve('.headwater', `test-${process.pid}`);
  let server: DevServices;
  beforeAll(async () => {
    server = await devServices({
      directory,
      // Postgres of its own, Kafka of the run: the setting stops every commit of the server.
      mode: 'auto',
      fresh: true,
      env: { ...process.env, DATABASE_URL: '' },
    });
  });
  afterAll(async () => {
    await server.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  beforeEach(() => open(server.databaseUrl));

  it('C42 C44 never takes back what the stream has told: the chunk is read again', async () => {
    await source.sql.query(`INSERT INTO a SELECT g, 'old' FROM generate_series(1, 20) g`);
    const options = { connectionString: proxy.url, snapshotChunkRows: 10, snapshotWorkers: 1 };
    const capture = await source.started(['a'], options);
    // Two chunks so far, and perhaps an empty one.
    holdMark(5, 'low');
    await capture.snapshot({ id: 'again', tables: ['public.a'] });
    await held();
    await source.sql.query('SET synchronous_commit = local');
    const hanging = await source.client();
    await source.sql.query(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
    await source.sql.query('SELECT pg_reload_conf()');
    await eventually(async () => {
      const { rows } = await source.sql.query<{ names: string }>('SHOW synchronous_standby_names');
      expect(Object.values(rows[0]!)).toEqual(['nobody']);
    });
    const update = hanging.query(`UPDATE a SET b = 'new' WHERE id = 15`);
    try {
      await eventually(async () => expect(story(await source.seen('a'), '15').at(-1)).toBe('u new'));
      const { rows } = await source.sql.query<{ b: string }>('SELECT b FROM a WHERE id = 15');
      expect(rows).toEqual([{ b: 'old' }]);
      await letGo();
      // Two reads more that do not see it.
      const marks = new Set<string>();
      proxy.decide = ({ from, frame }) => {
        const mark = from === 'client' && /,(\d+),"low"\]/.exec(frame.toString('latin1'));
        if (mark) marks.add(mark[1]!);
        return undefined;
      };
      await eventually(() => expect(marks.size).toBeGreaterThan(2));
      expect(story(await source.seen('a'), '15').at(-1)).toBe('u new');
    } finally {
      await source.sql.query('ALTER SYSTEM RESET synchronous_standby_names');
      await source.sql.query('SELECT pg_reload_conf()');
      await update;
    }
    await over(capture);
    await source.settled(['a']);
    expect(story(await source.seen('a'), '15')).toEqual(['r old', 'u new', 'r new']);
    await source.foldEqualsTable();
  });
});
