import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, faultProxy } from '@headwater/testing';
import type { FaultProxy } from '@headwater/testing';
import { parseLsn } from './lsn.js';
import { brokers, Source } from './source.testing.js';

const PRODUCE = 0;
const END_TXN = 26;

let source: Source;
/** In front of the broker, for the first owner alone. */
let kafka: FaultProxy;
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
  await source.topics(['a']);
  const [host, port] = brokers[0]!.split(':');
  kafka = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
});
afterEach(async () => {
  await source.close();
  await kafka.close();
});

/** The server gives up a silent client soon. */
async function impatientServer(): Promise<void> {
  const { rows } = await source.sql.query<{ name: string }>('SELECT current_database() AS name');
  await source.sql.query(`ALTER DATABASE "${rows[0]!.name}" SET wal_sender_timeout = '2s'`);
}

async function everyRowOnce(count: number): Promise<void> {
  const seen = await source.seenCount('a', count, 30_000);
  expect(seen.map(({ key }) => Number(key))).toEqual(Array.from({ length: count }, (_, i) => i + 1));
}

const insert = (id: number) => source.sql.query(`INSERT INTO a VALUES (${id}, 'x')`);

describe('owners of a slot', () => {
  it.each([
    ['Produce', PRODUCE],
    ['EndTxn', END_TXN],
  ])(
    'C17 refuses the %s of an owner that was stopped and revived after a takeover; it ends without an ack',
    async (_, api) => {
      await impatientServer();
      const old = await source.process(['a'], { kafkaPort: kafka.port });
      await insert(1);
      await source.seenCount('a', 1);
      let rows = false;
      kafka.decide = ({ apiKey, bytes }) => {
        // Not those of an idle position.
        rows ||= apiKey === PRODUCE && bytes > 20_000;
        return rows && apiKey === api ? { at: 'request', act: 'hold' } : undefined;
      };
      await source.sql.query(`INSERT INTO a SELECT g, repeat('x', 200) FROM generate_series(2, 200) g`);
      await kafka.strikes(1);
      old.pause();
      const owner = await source.process(['a']);
      await owner.until('streaming', 30_000);
      await everyRowOnce(200);
      const taken = (await source.slotFacts())!;
      kafka.decide = () => undefined;
      await kafka.release();
      old.resume();
      await old.ended();
      expect(old.halted).toMatchObject({ code: 'CDC_FENCED' });
      // The slot stayed with its new owner, and only it acknowledges.
      const facts = (await source.slotFacts())!;
      expect(facts.pid).toBe(taken.pid);
      expect(parseLsn(facts.confirmed) <= (await source.lastPosition()).endLsn).toBe(true);
      await insert(201);
      await everyRowOnce(201);
    },
  );

  it('C18 lets a second instance wait, and stream when the first one is killed', async () => {
    const first = await source.process(['a']);
    const second = await source.process(['a']);
    expect((await first.status()).state).toBe('streaming');
    expect((await second.status()).state).toBe('waiting');
    for (let id = 1; id <= 50; id++) await insert(id);
    await source.seenCount('a', 50);
    expect((await second.status()).state).toBe('waiting');
    expect([first.errors, second.errors]).toEqual([[], []]);
    const writing = (async () => {
      for (let id = 51; id <= 300; id++) await insert(id);
    })();
    await source.seenCount('a', 60);
    await first.kill();
    await second.until('streaming', 15_000);
    await writing;
    await everyRowOnce(300);
    expect(second.errors).toEqual([]);
  });

  it('C19 takes a new epoch each time the broker has aborted its transaction, and repeats from the position', async () => {
    const capture = await source.process(['a'], { kafkaPort: kafka.port, transactionTimeoutMs: 2_000 });
    const bounds = async () => (await source.log.admin.offsets(source.topic('a')))[0]!;
    let count = 0;
    // The writer's two producers take turns: either may be the one that is refused.
    for (const turn of [1, 2, 3]) {
      await insert(++count);
      await everyRowOnce(count);
      let rows = false;
      kafka.decide = ({ apiKey, bytes }) => {
        rows ||= apiKey === PRODUCE && bytes > 20_000;
        return rows && apiKey === END_TXN ? { at: 'request', act: 'hold' } : undefined;
      };
      await source.sql.query(
        `INSERT INTO a SELECT g, repeat('x', 200) FROM generate_series(${count + 1}, ${count + 200}) g`,
      );
      await kafka.strikes(turn);
      capture.pause();
      const open = await bounds();
      expect(open.high).toBeGreaterThan(open.lastStable);
      // The broker's time-out, not a fence, moves it on.
      await eventually(async () => expect((await bounds()).lastStable).toBeGreaterThan(open.high), {
        timeoutMs: 30_000,
      });
      expect(await source.seen('a')).toHaveLength(count);
      kafka.decide = () => undefined;
      await kafka.release();
      capture.resume();
      count += 200;
      await everyRowOnce(count);
    }
    expect(capture.halted).toBeUndefined();
  });
});
