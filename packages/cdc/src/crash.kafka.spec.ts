import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createServer, connect as connectTo } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import { parseLsn } from './lsn.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;
const END_TXN = 26;

let source: Source;
let kafka: FaultProxy;
let child: ChildProcess | undefined;
let postgres: StatusDropper | undefined;

beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a'], 2);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
});
afterEach(async () => {
  await kill();
  await kafka.close();
  await postgres?.close();
  postgres = undefined;
  await source.close();
});

async function run(connectionString = source.url): Promise<void> {
  const { log: _log, onError: _onError, logger: _logger, ...options } = source.options(['a']);
  const script = fileURLToPath(new URL('./crash-child.testing.mjs', import.meta.url));
  const started = spawn(
    process.execPath,
    [script, JSON.stringify({ ...options, connectionString, brokers, kafkaPort: kafka.port })],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  child = started;
  let output = '';
  started.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  await eventually(() => expect(output).toContain('started'));
}

async function kill(): Promise<void> {
  const dying = child;
  child = undefined;
  if (dying === undefined || dying.exitCode !== null || dying.signalCode !== null) return;
  const gone = new Promise((resolve) => dying.once('exit', resolve));
  dying.kill('SIGKILL');
  await gone;
}

async function everyRowOnce(ids: readonly number[]): Promise<void> {
  const seen = await source.seenCount('a', ids.length, 30_000);
  const once = seen.map(({ key, tx, seq }) => `${key} ${tx} ${seq}`).toSorted();
  expect(seen.map(({ key }) => Number(key)).toSorted((x, y) => x - y)).toEqual(ids);
  expect(new Set(once).size).toBe(ids.length);
}

describe('kill -9', () => {
  it('C11 before anything is produced: every row once, and the slot never passed it', async () => {
    await run();
    kafka.decide = ({ apiKey }) => (apiKey === PRODUCE ? { at: 'request', act: 'drop' } : undefined);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x'), (2, 'x')`);
    await eventually(() => expect(kafka.log.length).toBeGreaterThan(0));
    await kill();
    expect(await source.seen('a')).toEqual([]);
    const confirmed = parseLsn((await source.slotFacts())!.confirmed);
    kafka.decide = () => undefined;
    await run();
    await source.sql.query(`INSERT INTO a VALUES (3, 'x')`);
    await everyRowOnce([1, 2, 3]);
    // A log LSN is that of the commit record: the slot may have reached it, but not passed it.
    const first = (await source.seen('a')).find(({ key }) => key === '1')!;
    expect(confirmed <= parseLsn(first.lsn!)).toBe(true);
  });

  it('C12 after Produce and before the commit: the first attempt is never seen', async () => {
    await run();
    kafka.decide = ({ apiKey }) => (apiKey === END_TXN ? { at: 'request', act: 'drop' } : undefined);
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 100) g`);
    await eventually(() => expect(kafka.log.length).toBeGreaterThan(0));
    await kill();
    expect(await source.seen('a')).toEqual([]);
    kafka.decide = () => undefined;
    await run();
    await source.sql.query(`INSERT INTO a VALUES (101, 'x')`);
    await everyRowOnce(Array.from({ length: 101 }, (_, i) => i + 1));
  });

  it('C13 after the commit and before the ack: what comes again is skipped', async () => {
    const url = new URL(source.url);
    postgres = await statusDropper(url.hostname, Number(url.port));
    url.port = String(postgres.port);
    await run(url.href);
    postgres.dropping = true;
    const before = (await source.slotFacts())!.confirmed;
    for (let id = 1; id <= 50; id++) await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
    await source.seenCount('a', 50);
    await kill();
    expect((await source.slotFacts())!.confirmed).toBe(before);
    await run();
    await source.sql.query(`INSERT INTO a VALUES (51, 'x')`);
    await everyRowOnce(Array.from({ length: 51 }, (_, i) => i + 1));
  });

  it('C16 goes on in the same process when the reply to a commit is lost, or the request', async () => {
    await run();
    for (const at of ['response', 'request'] as const) {
      let dropped = false;
      kafka.decide = ({ apiKey }) => {
        if (apiKey !== END_TXN || dropped) return undefined;
        dropped = true;
        return { at, act: 'close' };
      };
      const id = at === 'response' ? 1 : 2;
      await source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);
      await everyRowOnce(id === 1 ? [1] : [1, 2]);
    }
    await source.sql.query(`INSERT INTO a VALUES (3, 'x')`);
    await everyRowOnce([1, 2, 3]);
  });
});

interface StatusDropper {
  readonly port: number;
  dropping: boolean;
  close(): Promise<void>;
}

/** A proxy in front of Postgres that can swallow standby status updates (CopyData whose first byte is `r`). */
async function statusDropper(host: string, port: number): Promise<StatusDropper> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connectTo(port, host);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => [client, upstream].forEach((other) => other.destroy()));
    }
    upstream.pipe(client);
    let rest = Buffer.alloc(0);
    let first = true;
    client.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (;;) {
        // The startup packet has no type byte.
        const head = first ? 0 : 1;
        if (rest.length < head + 4) return;
        const end = head + rest.readUInt32BE(head);
        if (rest.length < end) return;
        const frame = rest.subarray(0, end);
        rest = rest.subarray(end);
        const isStatus = !first && frame[0] === 0x64 && frame[5] === 0x72;
        first = false;
        if (!isStatus || !dropper.dropping) upstream.write(frame);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const dropper: StatusDropper = {
    port: (server.address() as AddressInfo).port,
    dropping: false,
    close: () =>
      new Promise<void>((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
  return dropper;
}
