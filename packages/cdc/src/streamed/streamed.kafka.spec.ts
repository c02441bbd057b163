import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, faultProxy } from '@headwater/testing';
import { parseLsn } from '../lsn.js';
import { MeasuredCapture } from '../measured-capture.testing.js';
import { brokers, Source } from '../source.testing.js';

const PRODUCE = 0;

let source: Source;
let directory: string;
beforeEach(async () => {
  source = await Source.open();
  directory = await mkdtemp(join(tmpdir(), 'spools-'));
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await workMemory('64kB');
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

/** Files of open transactions, in the directories of their slots. */
async function files(): Promise<string[]> {
  const found = await readdir(directory, { recursive: true });
  return found.filter((name) => name.endsWith('.spool'));
}

/** What an open transaction has written is read by nobody before it is flushed: a commit does that, of any other. */
async function flushed(): Promise<void> {
  await source.sql.query(`SELECT pg_logical_emit_message(true, 'other', '')`);
}

/** Resolves with the file of the open transaction. */
async function onDisk(): Promise<string> {
  await flushed();
  return eventually(async () => {
    const found = await files();
    expect(found).toHaveLength(1);
    return found[0]!;
  });
}

/** Resolves when the server has decoded, and sent, all that was written. */
async function sent(): Promise<void> {
  await flushed();
  const end = await source.walLsn();
  await eventually(async () => {
    const { rows: found } = await source.sql.query<{ lsn: string }>(
      'SELECT sent_lsn AS lsn FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = $1',
      [source.slot],
    );
    expect(parseLsn(found[0]!.lsn) >= end).toBe(true);
  });
}

const rows = (from: number, to: number) =>
  `INSERT INTO a SELECT g, repeat('x', 200) FROM generate_series(${from}, ${to}) g`;
const keys = async (count: number) =>
  (await source.seenCount('a', count)).map(({ key }) => Number(key)).toSorted((x, y) => x - y);
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe('streamed transactions', () => {
  it.each(['off', 'on'] as const)(
    'C05 passes by what was rolled back before the server had decoded it, streaming %s',
    async (mode) => {
      await source.topics(['a']);
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

  it('C05 C86 leaves no record and no file of what is rolled back, and publishes and acknowledges others meanwhile', async () => {
    await source.topics(['a']);
    await source.started(['a'], streaming());
    const large = await source.client();
    await large.query(`BEGIN; ${rows(1, 20_000)}`);
    await onDisk();
    const begun = await source.walLsn();
    await source.sql.query(rows(30_001, 30_001));
    expect(await keys(1)).toEqual([30_001]);
    await eventually(async () => expect(parseLsn((await source.slotFacts())!.confirmed) > begun).toBe(true));
    await large.query('ROLLBACK');
    await flushed();
    await eventually(async () => expect(await files()).toEqual([]));
    await source.sql.query(rows(30_002, 30_002));
    expect(await keys(2)).toEqual([30_001, 30_002]);
  });

  it('C08 records a version of a table once, also when what was streamed of it is rolled back in part', async () => {
    await source.topics(['a', 'schemas']);
    await source.started(['a'], { ...streaming(), schemasTopic: source.topic('schemas') });
    await source.sql.query(rows(1, 1));
    expect(await keys(1)).toEqual([1]);
    const large = await source.client();
    await large.query(`BEGIN; ALTER TABLE a ADD c int; ${rows(2, 2_000)}; SAVEPOINT s; ${rows(2_001, 4_000)}`);
    await sent();
    await large.query('ROLLBACK TO s; COMMIT');
    await source.sql.query(rows(4_001, 4_001));
    expect(await keys(2_001)).toEqual([...range(1, 2_000), 4_001]);
    const versions = (await source.seen('schemas')).map(
      ({ value }) => (JSON.parse(value!) as { columns: unknown[] }).columns.length,
    );
    expect(versions).toEqual([2, 3]);
  });

  it('C11 C86 killed while a transaction is open that was streamed, and others are acknowledged behind its beginning: every row once', async () => {
    await source.topics(['a']);
    const first = await source.process(['a'], streaming());
    const large = await source.client();
    await large.query(`BEGIN; ${rows(1, 20_000)}`);
    await onDisk();
    const begun = await source.walLsn();
    await source.sql.query(rows(30_001, 30_001));
    await eventually(async () => expect(parseLsn((await source.slotFacts())!.confirmed) > begun).toBe(true));
    await first.kill();
    const left = await files();
    expect(left).toHaveLength(1);
    await source.slotFree();
    await source.process(['a'], streaming());
    await eventually(async () => expect((await files()).filter((name) => left.includes(name))).toEqual([]));
    await large.query(`${rows(20_001, 20_010)}; COMMIT`);
    expect(await keys(20_011)).toEqual([...range(1, 20_010), 30_001]);
    await eventually(async () => expect(await files()).toEqual([]));
  });

  it('C14 killed while a streamed transaction is handed on after its commit: nothing of the first try is seen, every row once', async () => {
    await source.topics(['a']);
    const [host, port] = brokers[0]!.split(':');
    const kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
    const options = { ...streaming(), kafkaPort: kafka.port, maxBatchRows: 3_000 };
    const first = await source.process(['a'], options);
    let parts = 0;
    kafka.decide = ({ apiKey, bytes }) =>
      apiKey === PRODUCE && bytes > 50_000 && ++parts === 3 ? { at: 'request', act: 'drop' } : undefined;
    const large = await source.client();
    await large.query(`BEGIN; ${rows(1, 20_000)}`);
    await onDisk();
    expect(parts).toBe(0);
    await large.query('COMMIT');
    await kafka.strikes(1);
    const left = await files();
    await first.kill();
    expect(left).toHaveLength(1);
    expect(await source.seen('a')).toEqual([]);
    kafka.decide = () => undefined;
    await source.process(['a'], options);
    const seen = await source.seenCount('a', 20_000, 30_000);
    expect(seen.map(({ key }) => Number(key))).toEqual(range(1, 20_000));
    expect(seen.map(({ seq }) => seq)).toEqual(range(0, 19_999));
    await eventually(async () => expect(await files()).toEqual([]));
    await kafka.close();
  });

  it('takes transactions whole when it cannot be told whether a message was rolled back: it is never guessed', async () => {
    await source.topics(['a', 'out']);
    const capture = await source.started(['a'], streaming());
    const emit = (key: string) =>
      `SELECT pg_logical_emit_message(true, 'headwater', '${JSON.stringify({ topic: source.topic('out'), key, value: '{}' })}')`;
    const large = await source.client();
    // Right before the first row of the subtransaction: its own, or of the one around it?
    await large.query(`BEGIN; ${rows(1, 1_000)}; SAVEPOINT s; ${emit('rolled back')}; ${rows(2_001, 3_000)}`);
    await sent();
    await large.query(`ROLLBACK TO s; ${rows(4_001, 4_002)}; ${emit('committed')}`);
    await flushed();
    await eventually(() => expect(capture.status().reconnects).toBe(1));
    await large.query('COMMIT');
    expect(await keys(1_002)).toEqual([...range(1, 1_000), 4_001, 4_002]);
    expect((await source.seenCount('out', 1)).map(({ key }) => key)).toEqual(['committed']);
    expect(source.errors).toEqual([expect.objectContaining({ code: 'CDC_MESSAGE_UNPLACED' })]);
    expect(capture.status()).toMatchObject({ state: 'streaming', reconnects: 1 });
  });

  it('takes transactions whole when a file gives back other bytes: the rows are right, each once', async () => {
    await source.topics(['a']);
    const capture = await source.started(['a'], streaming());
    const large = await source.client();
    await large.query(`BEGIN; ${rows(1, 20_000)}`);
    const file = await onDisk();
    await sent();
    await writeFile(join(directory, file), 'not what was written', { flag: 'r+' });
    await large.query('COMMIT');
    expect(await keys(20_000)).toEqual(range(1, 20_000));
    expect(source.errors).toEqual([expect.objectContaining({ code: 'CDC_SPOOL_FAILED' })]);
    expect(capture.status().reconnects).toBe(1);
  });

  it('refuses to stream with a directory that cannot be made, naming it', async () => {
    await source.topics(['a']);
    await writeFile(join(directory, 'file'), '');
    const spoolDirectory = join(directory, 'file', 'spools');
    const capture = source.capture(['a'], { ...streaming(), spoolDirectory });
    await expect(capture.start().then(() => capture.finished)).rejects.toMatchObject({
      code: 'CDC_SPOOL_UNUSABLE',
      message: expect.stringContaining(spoolDirectory),
    });
  });

  describe('of a million rows', () => {
    let measured: MeasuredCapture | undefined;
    afterEach(() => measured?.stop());

    it('C09 are on disk before their commit and visible after it only, in order and in little memory; others are published before', async () => {
      await workMemory('1MB');
      await source.topics(['a']);
      const options = source.processOptions(['a'], { ...streaming(), maxBatchRows: 1_000_000 });
      measured = await MeasuredCapture.start(options);
      const large = await source.client();
      await large.query(`BEGIN; INSERT INTO a SELECT i, 'of a million' FROM generate_series(1, 1000000) i`);
      await onDisk();
      await source.sql.query(`INSERT INTO a VALUES (0, 'small')`);
      expect((await measured.published(1)).peakRssMb).toBeLessThan(300);
      expect((await source.seen('a')).map(({ key }) => key)).toEqual(['0']);
      await large.query('COMMIT');
      expect((await measured.published(1_000_001)).peakRssMb).toBeLessThan(300);
      const wanted = (index: number) => ({ key: index, seq: Math.max(0, index - 1) });
      expect(await source.compared('a', wanted)).toEqual({ records: 1_000_001, wrong: 0 });
      await eventually(async () => expect(await files()).toEqual([]));
    });
  });
});
