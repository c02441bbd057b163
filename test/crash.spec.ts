import { randomInt, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { headerText, type LogRecord } from '@headwater/core';
import { eventually, seededRandom } from '@headwater/testing';
import { Bank, type Answer, type BankProcess, type TransferRequest } from './bank.js';

const ROLES = ['api', 'capture', 'processors', 'projections'] as const;
type Role = (typeof ROLES)[number];

const MINUTE = { timeoutMs: 60_000, intervalMs: 200 };
const seed = randomInt(2 ** 31);
/** Every tenth transfer is refused at its first step, every tenth at its second. */
const KINDS = ['too much', 'embargo'] as const;

let bank: Bank;
const processes = new Map<Role, BankProcess>();

beforeAll(async () => {
  bank = await Bank.start();
  for (const role of ROLES) processes.set(role, await bank.process(role));
});

afterAll(async () => {
  await bank?.stop();
});

const api = () => processes.get('api')!;
const kill = (role: Role) => processes.get(role)!.kill();
const restart = async (role: Role) => processes.set(role, await bank.process(role));

/** Sends until it is answered, always with one key: what a client does whose server dies. */
async function persistently(request: TransferRequest, key: string): Promise<Answer> {
  return eventually(async () => {
    const answer = await api().transfer(request, key);
    if (answer.status >= 500) throw new Error(`${answer.status} ${answer.text}`);
    return answer;
  }, MINUTE);
}

const header = (record: LogRecord, name: string) => headerText(record.headers, name) ?? '';

async function expectEndedOnce(transferIds: readonly string[]): Promise<void> {
  await eventually(async () => {
    const open = await bank.count(
      `FROM unnest($1::text[]) AS sent(id) LEFT JOIN headwater.sagas s ON s.saga = 'transfer' AND s.id = sent.id
       WHERE s.status IS NULL OR s.status NOT IN ('completed', 'rejected', 'compensated')`,
      [transferIds],
    );
    expect(open).toBe(0);
  }, MINUTE);
  const wrong = await bank.rows(
    `SELECT s.id, s.status, count(e.id)::int AS entries, coalesce(sum(e.amount_cents), 0)::text AS sum,
            (SELECT count(*)::int FROM bank.receipts r WHERE r.transfer_id::text = s.id) AS receipts
     FROM headwater.sagas s LEFT JOIN bank.entries e ON e.journal_id::text = s.id
     WHERE s.id = ANY($1) GROUP BY s.id, s.status
     HAVING count(e.id) <> CASE WHEN s.status = 'completed' THEN 2 ELSE 0 END OR coalesce(sum(e.amount_cents), 0) <> 0
        OR (SELECT count(*) FROM bank.receipts r WHERE r.transfer_id::text = s.id) <> CASE WHEN s.status = 'completed' THEN 1 ELSE 0 END`,
    [transferIds],
  );
  expect(wrong).toEqual([]);
}

async function expectBooksAgree(): Promise<void> {
  const disagreeing = await bank.rows(
    `SELECT a.id FROM bank.accounts a LEFT JOIN bank.entries e ON e.account_id = a.id GROUP BY a.id
     HAVING a.posted_cents <> coalesce(sum(e.amount_cents), 0)
       OR (a.kind = 'customer' AND a.posted_cents - a.held_cents < -a.overdraft_limit_cents)`,
  );
  expect(disagreeing).toEqual([]);
  expect((await api().get('/ledger/check')).body).toMatchObject({
    ok: true,
    currencies: { EUR: { sumCents: 0, heldCents: 0 } },
    openSagas: 0,
    parked: 0,
  });
  const accounts = await bank.rows<{ id: string; posted_cents: string; held_cents: string; version: string }>(
    `SELECT id, posted_cents, held_cents, version FROM bank.accounts WHERE kind = 'customer'`,
  );
  for (const account of accounts) {
    await eventually(async () => {
      expect((await api().get(`/accounts/${account.id}`)).body).toMatchObject({
        postedCents: Number(account.posted_cents),
        pendingCents: Number(account.held_cents),
        version: Number(account.version),
      });
    }, MINUTE);
  }
}

async function expectNothingLingers(): Promise<void> {
  expect(await bank.count('FROM bank.holds')).toBe(0);
  expect(await bank.count('FROM headwater.sagas WHERE open')).toBe(0);
  await eventually(async () => {
    const open = `FROM pg_stat_activity WHERE application_name = 'headwater' AND state LIKE 'idle in transaction%'`;
    expect(await bank.count(open)).toBe(0);
    const waiting = `FROM pg_locks WHERE NOT granted`;
    expect(await bank.count(waiting)).toBe(0);
  });
}

describe('the bank whose processes are killed', () => {
  it(`G72 G73 G74 G75 G76 ends each of 500 transfers once while every role is killed in turn (seed ${seed})`, async () => {
    const pick = seededRandom(seed).below;
    const accounts = await Promise.all(Array.from({ length: 10 }, () => api().open(100_000)));
    const loadEnds = new AbortController();
    const checks: Record<string, unknown>[] = [];
    const watching = (async () => {
      while (!loadEnds.signal.aborted) {
        const next = performance.now() + 100;
        const check = await api()
          .get('/ledger/check')
          .catch(() => undefined);
        if (check?.status === 200) checks.push(check.body);
        await eventually(() => expect(performance.now()).toBeGreaterThanOrEqual(next), { intervalMs: 20 });
      }
    })();
    const requests = Array.from({ length: 500 }, (_, n): TransferRequest => {
      const from = pick(10);
      const kind = KINDS[n % 10];
      return {
        fromAccountId: accounts[from]!,
        toAccountId: accounts[(from + 1 + pick(9)) % 10]!,
        // An embargo is found only after the money was reserved: its cent is always there.
        amountCents: kind === 'too much' ? 10_000_000 : kind === 'embargo' ? 1 : 1 + pick(3_000),
        reference: kind ?? 'load',
      };
    });
    const accepted: string[] = [];
    let next = 0;
    const clients = Array.from({ length: 16 }, async () => {
      for (let n = next++; n < requests.length; n = next++) {
        const answer = await persistently(requests[n]!, randomUUID());
        expect(answer.status).toBe(202);
        accepted.push(String(answer.body['transferId']));
      }
    });
    const killing = (async () => {
      for (const [n, role] of (['capture', 'processors', 'projections', 'api'] as const).entries()) {
        await eventually(() => expect(accepted.length).toBeGreaterThanOrEqual(80 * (n + 1)), MINUTE);
        await kill(role);
        await restart(role);
      }
    })();
    try {
      await Promise.all([...clients, killing]);
      expect(new Set(accepted).size).toBe(500);
      await expectEndedOnce(accepted);
    } finally {
      loadEnds.abort();
      await watching;
    }
    const statuses = await bank.rows<{ status: string; n: number }>(
      'SELECT status, count(*)::int AS n FROM headwater.sagas GROUP BY status',
    );
    const ended = new Map(statuses.map(({ status, n }) => [status, n]));
    expect(ended.get('completed')).toBeGreaterThan(100);
    expect(ended.get('rejected')).toBeGreaterThan(10);
    expect(ended.get('compensated')).toBeGreaterThan(10);
    expect(await bank.count('FROM bank.transfers')).toBe(500);
    expect(checks.length).toBeGreaterThan(20);
    expect(checks.filter((check) => check['ok'] !== true)).toEqual([]);
    await expectBooksAgree();
    await expectNothingLingers();
  });

  it('G07 goes on after capture and participants died between the SQL commit and the capture of its reply', async () => {
    const accounts = await Promise.all(Array.from({ length: 10 }, () => api().open(20_000)));
    // Holds back every reservation until the lock is free: the transaction is open, its reply not yet in the WAL.
    const gate = await bank.sql.connect();
    await gate.query('SELECT pg_advisory_lock(7)');
    await gate.query(`CREATE FUNCTION bank.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$`);
    await gate.query(
      'CREATE TRIGGER gate BEFORE INSERT ON bank.holds FOR EACH ROW EXECUTE FUNCTION bank.wait_at_gate()',
    );
    const sent = await Promise.all(
      Array.from({ length: 100 }, (_, n) =>
        api().transfer({
          fromAccountId: accounts[n % 10]!,
          toAccountId: accounts[(n + 1) % 10]!,
          amountCents: 100,
        }),
      ),
    );
    const ids = sent.map(({ body }) => String(body['transferId']));
    await eventually(async () => {
      expect(await bank.count(`FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`)).toBeGreaterThan(0);
    }, MINUTE);
    await kill('capture');
    await gate.query('SELECT pg_advisory_unlock(7)');
    gate.release();
    // Committed, and nobody captures it.
    await eventually(async () => expect(await bank.count('FROM bank.holds')).toBeGreaterThan(0), MINUTE);
    await kill('processors');
    expect(await bank.count(`FROM bank.entries WHERE journal_id::text = ANY($1)`, [ids])).toBe(0);
    await bank.rows('DROP TRIGGER gate ON bank.holds');
    await Promise.all([restart('capture'), restart('processors')]);
    await expectEndedOnce(ids);
    const replies = (await bank.records('headwater.saga.transfer.replies')).filter((one) =>
      ids.includes(one.key!.toString('utf8')),
    );
    const replyIds = replies.map((one) => one.headers.find(([name]) => name === 'ce_id')![1]!.toString('utf8'));
    expect(replyIds).toHaveLength(400);
    expect(new Set(replyIds).size).toBe(400);
    await expectBooksAgree();
  });

  it('S62 sends each undo once, killed after every undo command and every undo reply', async () => {
    const accounts = await Promise.all(Array.from({ length: 4 }, () => api().open(10_000)));
    const ids: string[] = [];
    const seen = async (topic: string) =>
      (await bank.records(topic)).filter(
        (one) => header(one, 'hw_direction') === 'undo' || String(one.value).includes('"direction":"undo"'),
      );
    const ofIds = async (topic: string) => {
      const records = await seen(topic);
      return records.filter((one) => ids.some((id) => String(one.key) === id || header(one, 'ce_id').includes(id)));
    };
    for (const topic of ['bank.ledger.commands', 'headwater.saga.transfer.replies'])
      for (let round = 0; round < 3; round++) {
        const before = (await ofIds(topic)).length;
        const sent = await Promise.all(
          accounts.map((from, n) =>
            api().transfer({
              fromAccountId: from,
              toAccountId: accounts[(n + 1) % accounts.length]!,
              amountCents: 1,
              reference: 'embargo',
            }),
          ),
        );
        ids.push(...sent.map(({ body }) => String(body['transferId'])));
        await eventually(async () => expect((await ofIds(topic)).length).toBeGreaterThan(before), {
          ...MINUTE,
          intervalMs: 5,
        });
        await kill('processors');
        await restart('processors');
      }
    await expectEndedOnce(ids);
    const wanted = ids.map((id) => `transfer:${id}:reserve:undo`).sort();
    expect((await ofIds('bank.ledger.commands')).map((one) => header(one, 'ce_id')).sort()).toEqual(wanted);
    const replied = (await ofIds('headwater.saga.transfer.replies')).map((one) => String(one.key));
    expect(replied.sort()).toEqual([...ids].sort());
    const statuses = await bank.rows(`SELECT DISTINCT status FROM headwater.sagas WHERE id = ANY($1)`, [ids]);
    expect(statuses).toEqual([{ status: 'compensated' }]);
    await expectBooksAgree();
    await expectNothingLingers();
  });

  it('G83 answers a repeated request as the first would have been after the API died behind its COMMIT', async () => {
    const [from, to] = [await api().open(1_000), await api().open()];
    // The token is written after the commit of the work: held there, the answer never leaves.
    const gate = await bank.sql.connect();
    await gate.query('SELECT pg_advisory_lock(83)');
    await gate.query(`CREATE FUNCTION bank.wait_for_token() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_advisory_xact_lock_shared(83); RETURN NEW; END $$`);
    await gate.query(`CREATE TRIGGER gate BEFORE UPDATE ON bank.requests FOR EACH ROW
      WHEN (OLD.token IS NULL AND NEW.token IS NOT NULL) EXECUTE FUNCTION bank.wait_for_token()`);
    const key = randomUUID();
    const request = { fromAccountId: from, toAccountId: to, amountCents: 250 };
    const first = api()
      .transfer(request, key)
      .then(
        () => 'answered',
        () => 'lost',
      );
    const committed = await eventually(async () => {
      const rows = await bank.rows<{ id: string }>('SELECT id FROM bank.transfers WHERE from_account_id = $1', [from]);
      expect(rows).toHaveLength(1);
      return rows[0]!.id;
    });
    await kill('api');
    expect(await first).toBe('lost');
    await gate.query('SELECT pg_advisory_unlock(83)');
    gate.release();
    await bank.rows('DROP TRIGGER gate ON bank.requests');
    await restart('api');
    const again = await persistently(request, key);
    expect(again).toMatchObject({ status: 202, body: { transferId: committed, status: 'pending' } });
    expect(await api().transfer(request, key)).toEqual(again);
    await expectEndedOnce([committed]);
    expect(await bank.count('FROM bank.transfers WHERE from_account_id = $1', [from])).toBe(1);
    await expectBooksAgree();
  });
});
