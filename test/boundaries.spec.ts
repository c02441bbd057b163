import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { LogRecord } from '@headwater/core';
import { eventually, faultProxy, type Fault, type FaultProxy, type ProxiedRequest } from '@headwater/testing';
import { postgresProxy, type PostgresProxy } from '../packages/cdc/src/postgres-proxy.testing.js';
import { Bank, type BankProcess } from './bank.js';

const MINUTE = { timeoutMs: 60_000, intervalMs: 50 };
const CLIENT = 'bank-processors';
const STEPS = ['reserve', 'screen', 'post', 'receipt'];
const COMMANDS = ['bank.ledger.commands', 'bank.compliance.commands', 'bank.receipts.commands'];
const STATUS = 'headwater.saga.transfer';
const REPLIES = 'headwater.saga.transfer.replies';

let bank: Bank;
let kafka: FaultProxy;
let postgres: PostgresProxy;
let api: BankProcess;
let capture: BankProcess;
let processors: BankProcess;
let accounts: string[];

beforeAll(async () => {
  const target = { host: '127.0.0.1', port: 0 };
  kafka = await faultProxy({ target, protocol: 'kafka' });
  // Everybody is sent through the proxy, the rules are for the saga's processor: it alone writes to Kafka in that role.
  bank = await Bank.start({ 'advertised.listeners': `PLAINTEXT://127.0.0.1:${kafka.port}` });
  target.port = bank.kafkaPort;
  postgres = await postgresProxy(bank.databaseUrl);
  [api, capture, processors] = await Promise.all([
    bank.process('api,projections'),
    bank.process('capture', { DATABASE_URL: postgres.url }),
    bank.process('processors'),
  ]);
  accounts = await Promise.all(Array.from({ length: 4 }, () => api.open(1_000_000)));
  await expectEndedOnce(await transfers(1));
});

afterAll(async () => {
  await bank?.stop();
  await postgres?.close();
  await kafka?.close();
});

function decide(rule: (request: ProxiedRequest) => Fault | undefined): void {
  kafka.decide = (request) => (request.clientId === CLIENT ? rule(request) : undefined);
}

async function transfers(count: number): Promise<string[]> {
  const sent = await Promise.all(
    Array.from({ length: count }, (_, n) =>
      api.transfer({ fromAccountId: accounts[n % 4]!, toAccountId: accounts[(n + 1) % 4]!, amountCents: 100 }),
    ),
  );
  return sent.map((answer) => {
    expect(answer.status).toBe(202);
    return String(answer.body['transferId']);
  });
}

const header = (record: LogRecord, name: string): string =>
  record.headers.find(([key]) => key === name)![1]!.toString('utf8');

const commands = async (): Promise<LogRecord[]> => (await Promise.all(COMMANDS.map((one) => bank.records(one)))).flat();

/** Completed, each step's command sent once and with one effect, each reply seen once, each step taken once: state and commands agree. */
async function expectEndedOnce(ids: readonly string[]): Promise<void> {
  await eventually(async () => {
    const rows = await bank.rows<{ status: string; steps: { name: string; status: string }[] }>(
      'SELECT status, steps FROM headwater.sagas WHERE id = ANY($1)',
      [ids],
    );
    expect(rows.map(({ status }) => status)).toEqual(ids.map(() => 'completed'));
    for (const { steps } of rows) {
      expect(steps.map(({ name, status }) => `${name} ${status}`)).toEqual(STEPS.map((step) => `${step} done`));
    }
  }, MINUTE);
  const expected = ids.flatMap((id) => STEPS.map((step) => `transfer:${id}:${step}:do`)).sort();
  const sent = (await commands()).filter((one) => ids.includes(header(one, 'hw_correlation')));
  expect(sent.map((one) => header(one, 'ce_id')).sort()).toEqual(expected);
  const effects = await bank.rows<{ command_id: string; outcome: string }>(
    `SELECT command_id, outcome FROM headwater.inbox WHERE split_part(command_id, ':', 2) = ANY($1)`,
    [ids],
  );
  expect(effects.map(({ command_id }) => command_id).sort()).toEqual(expected);
  expect(new Set(effects.map(({ outcome }) => outcome))).toEqual(new Set(['ok']));
  const booked = await bank.rows<{ id: string }>(
    `SELECT t.id FROM bank.transfers t
     WHERE t.id::text = ANY($1) AND (SELECT count(*) FROM bank.receipts r WHERE r.transfer_id = t.id) = 1
       AND (SELECT array_agg(amount_cents ORDER BY amount_cents) FROM bank.entries e WHERE e.journal_id = t.id)
         = ARRAY[-t.amount_cents, t.amount_cents]`,
    [ids],
  );
  expect(booked.map(({ id }) => id).sort()).toEqual([...ids].sort());
  expect(await bank.count('FROM bank.holds')).toBe(0);
  const replies = (await bank.records(REPLIES)).filter((one) => ids.includes(String(one.key)));
  expect(replies.map((one) => `${String(one.key)} ${replyStep(one)}`).sort()).toEqual(
    ids.flatMap((id) => STEPS.map((step) => `${id} ${step}`)).sort(),
  );
  // The status changelog is compacted: its last segment never, and that is all there is here.
  const taken = (await bank.records(STATUS)).filter((one) => ids.includes(String(one.key)));
  for (const id of ids) {
    const done = taken.filter((one) => String(one.key) === id).map((one) => doneSteps(one));
    expect(done).toEqual([0, 1, 2, 3, 4]);
  }
  expect((await api.get('/ledger/check')).body).toMatchObject({ ok: true, parked: 0 });
}

const replyStep = (reply: LogRecord): string => (JSON.parse(String(reply.value)) as { step: string }).step;

const doneSteps = (status: LogRecord): number =>
  (JSON.parse(String(status.value)) as { state: { steps: { status: string }[] } }).state.steps.filter(
    (step) => step.status === 'done',
  ).length;

/** Offsets of command records that are in the log and in no finished transaction, as topic/partition/offset. */
async function unfinished(): Promise<string[]> {
  const found: string[] = [];
  for (const topic of COMMANDS) {
    for (const { partition, lastStable, high } of await bank.log.admin.offsets(topic))
      for (let offset = lastStable; offset < high; offset++) found.push(`${topic}/${partition}/${offset}`);
  }
  return found;
}

describe('the bank at the boundaries of the saga’s transactions', () => {
  /** Kills the processors in the saga's `nth` transaction from now, which never ends; returns its commands' places in the log. */
  async function killIn(nth: number, apiName: string, ids: () => Promise<string[]>): Promise<[string[], string[]]> {
    let count = 0;
    let struck = false;
    decide((request) => {
      if (request.apiName !== apiName || ++count < nth) return undefined;
      return { at: 'request', act: 'drop', onStrike: () => (struck = true) };
    });
    const sent = await ids();
    const attempt = await eventually(async () => {
      expect(struck).toBe(true);
      const found = await unfinished();
      expect(found).not.toEqual([]);
      return found;
    }, MINUTE);
    await processors.kill();
    decide(() => undefined);
    return [sent, attempt];
  }

  it.each([
    { id: 'G03', where: 'after Produce, before the offsets are added', apiName: 'TxnOffsetCommit', nth: 1 },
    { id: 'G04', where: 'with the offsets added, before EndTxn', apiName: 'EndTxn', nth: 3 },
  ])(
    '$id ends each transfer once, killed $where; no command of the first attempt is seen',
    async ({ apiName, nth }) => {
      const [ids, attempt] = await killIn(nth, apiName, () => transfers(10));
      const handled = await bank.rows<{ command_id: string }>('SELECT command_id FROM headwater.inbox');
      processors = await bank.process('processors');
      await expectEndedOnce(ids);
      const seen = await commands();
      const places = seen.map((one) => `${one.topic}/${one.partition}/${one.offset}`);
      expect(places.filter((place) => attempt.includes(place))).toEqual([]);
      // What had an effect by then was sent by a transaction before: a place in the log in front of the attempt's.
      for (const { command_id } of handled) {
        const sent = seen.find((one) => header(one, 'ce_id') === command_id)!;
        const behind = attempt.some((place) => {
          const [topic, partition, offset] = place.split('/');
          return topic === sent.topic && Number(partition) === sent.partition && Number(offset) < sent.offset;
        });
        expect([command_id, behind]).toEqual([command_id, false]);
      }
    },
  );

  it('G05 has one effect per command when the reply to EndTxn is lost and the processors are killed', async () => {
    let dead: Promise<void> | undefined;
    decide(({ apiName }) =>
      apiName === 'EndTxn' ? { at: 'response', act: 'drop', onStrike: () => (dead ??= processors.kill()) } : undefined,
    );
    const ids = await transfers(10);
    await eventually(() => expect(dead).toBeDefined(), MINUTE);
    await dead;
    decide(() => undefined);
    processors = await bank.process('processors');
    await expectEndedOnce(ids);
  });

  it.each([
    { landed: 'had landed', at: 'response' },
    { landed: 'had not landed', at: 'request' },
  ] as const)('G05 has one effect per command when no reply to EndTxn comes and the commit $landed', async ({ at }) => {
    let strikes = 0;
    let fenced = false;
    decide(({ apiName }) => {
      if (strikes > 0 && apiName === 'InitProducerId') fenced = true;
      return apiName === 'EndTxn' && !fenced ? { at, act: 'drop', onStrike: () => strikes++ } : undefined;
    });
    const ids = await transfers(10);
    await eventually(() => expect(fenced).toBe(true), MINUTE);
    await expectEndedOnce(ids);
  });

  it('G06 takes every step once, whole, when EndTxn arrives in the middle of the next transaction', async () => {
    let fenced = false;
    let next = false;
    const kept = () => kafka.log.filter(({ act }) => act === 'keep').length;
    decide(({ apiName }) => {
      if (kept() > 0 && apiName === 'InitProducerId') fenced = true;
      if (next || apiName !== 'EndTxn') return undefined;
      // Let go after its client has given it up: packets of a slow network.
      if (!fenced) return { at: 'request', act: 'keep' };
      // The next transaction is whole at the broker and waits for its end.
      next = true;
      return { at: 'request', act: 'hold' };
    });
    const ids = await transfers(10);
    await eventually(() => expect(next).toBe(true), MINUTE);
    const open = await unfinished();
    expect(open).not.toEqual([]);
    expect(kept()).toBeGreaterThan(0);
    await kafka.release(({ act }) => act === 'keep');
    // Neither committed nor aborted by the late request.
    expect(await unfinished()).toEqual(open);
    await kafka.release();
    decide(() => undefined);
    await expectEndedOnce(ids);
  });

  it('G08 sees each reply once when capture is killed after the Kafka commit, before the slot advances', async () => {
    const from = postgres.passed.length;
    postgres.dropStatus = true;
    const ids = await transfers(10);
    await eventually(async () => {
      const replies = (await bank.records(REPLIES)).filter((one) => ids.includes(String(one.key)));
      expect(replies.length).toBeGreaterThanOrEqual(ids.length);
    }, MINUTE);
    await capture.kill();
    const before = postgres.passed.slice(from).map(({ commitLsn }) => commitLsn);
    const killedAt = postgres.passed.length;
    postgres.dropStatus = false;
    capture = await bank.process('capture', { DATABASE_URL: postgres.url });
    await expectEndedOnce(ids);
    const again = postgres.passed.slice(killedAt).map(({ commitLsn }) => commitLsn);
    // The slot had not advanced: Postgres sent all of it again.
    expect(before.length).toBeGreaterThan(0);
    expect(again.filter((lsn) => before.includes(lsn))).toEqual(before);
  });
});
