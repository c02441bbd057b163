import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { textHeaders } from '@headwater/core';
import { eventually } from '@headwater/testing';
import { Bank, type BankProcess } from './bank.js';

let bank: Bank;
let api: BankProcess;

beforeAll(async () => {
  bank = await Bank.start();
  api = await bank.process();
});

afterAll(async () => {
  await bank?.stop();
});

async function ended(transferId: unknown, status: string): Promise<Record<string, unknown>> {
  return eventually(
    async () => {
      const answer = await api.get(`/transfers/${String(transferId)}`);
      expect(answer.body).toMatchObject({ transferId, status });
      return answer.body;
    },
    { timeoutMs: 20_000 },
  );
}

const balances = (accountIds: string[]) =>
  bank
    .rows<{ posted_cents: string; held_cents: string }>(
      'SELECT posted_cents, held_cents FROM bank.accounts WHERE id = ANY($1::uuid[]) ORDER BY array_position($1::uuid[], id)',
      [accountIds],
    )
    .then((rows) => rows.map((row) => [Number(row.posted_cents), Number(row.held_cents)]));

describe('the bank over HTTP', () => {
  it('completes a transfer with two entries', async () => {
    const [from, to] = [await api.open(10_000), await api.open()];
    const asked = await api.transfer({ fromAccountId: from, toAccountId: to, amountCents: 2_500, reference: 'rent' });
    expect(asked.status).toBe(202);
    expect(asked.body).toMatchObject({ status: 'pending', token: expect.any(String) });
    const seen = await ended(asked.body['transferId'], 'completed');
    expect(seen['steps']).toMatchObject([
      { name: 'reserve', status: 'done' },
      { name: 'screen', status: 'done' },
      { name: 'post', status: 'done' },
      { name: 'receipt', status: 'done' },
    ]);
    expect(await balances([from, to])).toEqual([
      [7_500, 0],
      [2_500, 0],
    ]);
    const entries = await bank.rows(
      'SELECT account_id, amount_cents FROM bank.entries WHERE journal_id = $1 ORDER BY amount_cents',
      [asked.body['transferId']],
    );
    expect(entries).toEqual([
      { account_id: from, amount_cents: '-2500' },
      { account_id: to, amount_cents: '2500' },
    ]);
    expect(await bank.count('FROM bank.receipts WHERE transfer_id = $1', [asked.body['transferId']])).toBe(1);
  });

  it('rejects a transfer without funds and compensates a sanctioned one, both with their reason', async () => {
    const [from, to] = [await api.open(1_000), await api.open()];
    const poor = await api.transfer({ fromAccountId: from, toAccountId: to, amountCents: 1_001 });
    const barred = await api.transfer({
      fromAccountId: from,
      toAccountId: to,
      amountCents: 900,
      reference: 'embargo goods',
    });
    expect(await ended(poor.body['transferId'], 'rejected')).toMatchObject({
      reason: 'insufficient-funds',
      steps: [
        { name: 'reserve', status: 'rejected' },
        { name: 'screen', status: 'waiting' },
        { name: 'post', status: 'waiting' },
        { name: 'receipt', status: 'waiting' },
      ],
    });
    expect(await ended(barred.body['transferId'], 'compensated')).toMatchObject({
      reason: 'sanctioned',
      steps: [
        { name: 'reserve', status: 'undone' },
        { name: 'screen', status: 'rejected' },
        { name: 'post', status: 'waiting' },
        { name: 'receipt', status: 'waiting' },
      ],
    });
    expect(await balances([from, to])).toEqual([
      [1_000, 0],
      [0, 0],
    ]);
  });

  it('G16 answers the same key and body the same, and makes one transfer', async () => {
    const [from, to] = [await api.open(1_000), await api.open()];
    const key = randomUUID();
    const request = { fromAccountId: from, toAccountId: to, amountCents: 100 };
    const first = await api.transfer(request, key);
    const second = await api.transfer(request, key);
    expect(second).toEqual(first);
    await ended(first.body['transferId'], 'completed');
    expect(await api.transfer(request, key)).toEqual(first);
    expect(await bank.count('FROM bank.transfers WHERE from_account_id = $1', [from])).toBe(1);
    expect(await bank.count('FROM bank.entries WHERE account_id = $1', [to])).toBe(1);
  });

  it('G17 makes one transfer of 20 parallel requests with one key, and gives all the same answer', async () => {
    const [from, to] = [await api.open(5_000), await api.open()];
    const key = randomUUID();
    const request = { fromAccountId: from, toAccountId: to, amountCents: 100 };
    const answers = await Promise.all(Array.from({ length: 20 }, () => api.transfer(request, key)));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 202));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    await ended(answers[0]!.body['transferId'], 'completed');
    expect(await bank.count('FROM bank.transfers WHERE from_account_id = $1', [from])).toBe(1);
    expect(await balances([from, to])).toEqual([
      [4_900, 0],
      [100, 0],
    ]);
  });

  it('G18 refuses a key that comes with another body and writes nothing', async () => {
    const [from, to] = [await api.open(1_000), await api.open()];
    const key = randomUUID();
    const first = await api.transfer({ fromAccountId: from, toAccountId: to, amountCents: 100 }, key);
    const other = await api.transfer({ fromAccountId: from, toAccountId: to, amountCents: 101 }, key);
    expect(other).toMatchObject({ status: 409, body: { code: 'idempotency-key-reused' } });
    await ended(first.body['transferId'], 'completed');
    expect(await bank.rows('SELECT amount_cents FROM bank.transfers WHERE from_account_id = $1', [from])).toEqual([
      { amount_cents: '100' },
    ]);
  });

  it('S34 G81 shows a write to who reads with its token, 1,000 times', async () => {
    const accounts = await Promise.all(Array.from({ length: 10 }, () => api.open()));
    await Promise.all(
      accounts.map(async (accountId) => {
        for (let n = 1; n <= 100; n++) {
          const { body } = await api.call('POST', `/accounts/${accountId}/deposits`, { amountCents: 7 });
          const read = await api.get(`/accounts/${accountId}?token=${encodeURIComponent(String(body['token']))}`);
          expect(read).toMatchObject({ status: 200, body: { accountId, postedCents: 7 * n } });
        }
      }),
    );
  });

  it('G78 refuses a transfer to itself and writes nothing', async () => {
    const account = await api.open(1_000);
    const answer = await api.transfer({ fromAccountId: account, toAccountId: account, amountCents: 1 });
    expect(answer).toMatchObject({ status: 422, body: { code: 'self-transfer' } });
    expect(answer.type).toContain('application/problem+json');
    expect(await bank.count('FROM bank.transfers WHERE from_account_id = $1', [account])).toBe(0);
  });

  it.each([
    ['zero', '0'],
    ['a negative', '-1'],
    ['a fraction', '0.5'],
    ['2^53', '9007199254740992'],
    ['above int8', '9223372036854775808'],
    ['a text', '"100"'],
    ['nothing', 'null'],
  ])('G99 refuses %s as an amount, naming the field, and writes nothing', async (_, amount) => {
    const [from, to] = [await api.open(1_000), await api.open()];
    const before = await bank.rows('SELECT (SELECT count(*) FROM bank.entries), (SELECT count(*) FROM bank.requests)');
    // By hand: the numbers of JavaScript would not carry every text.
    const send = async (path: string, body: string) => {
      const response = await fetch(api.url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': randomUUID() },
        body,
      });
      return { status: response.status, type: response.headers.get('content-type'), body: await response.json() };
    };
    const refused = {
      status: 400,
      type: expect.stringContaining('application/problem+json'),
      body: {
        code: 'invalid-body',
        errors: expect.arrayContaining([expect.objectContaining({ field: 'amountCents' })]),
      },
    };
    const transfer = `{"fromAccountId":"${from}","toAccountId":"${to}","currency":"EUR","amountCents":${amount}}`;
    expect(await send('/transfers', transfer)).toMatchObject(refused);
    expect(await send(`/accounts/${from}/deposits`, `{"amountCents":${amount}}`)).toMatchObject(refused);
    expect(await send(`/accounts/${from}/withdrawals`, `{"amountCents":${amount}}`)).toMatchObject(refused);
    expect(await bank.count('FROM bank.transfers WHERE from_account_id = $1', [from])).toBe(0);
    expect(await bank.rows('SELECT (SELECT count(*) FROM bank.entries), (SELECT count(*) FROM bank.requests)')).toEqual(
      before,
    );
  });

  it('G99 rejects a deposit and a transfer that would leave 64 bits', async () => {
    const [full, giver] = [await api.open(), await api.open(1_000)];
    await bank.rows(
      `WITH filled AS (UPDATE bank.accounts SET posted_cents = 9223372036854775800 WHERE id = $1 RETURNING id),
            other AS (INSERT INTO bank.accounts (id, owner, currency, kind, posted_cents)
              VALUES ($2, 'mint', 'EUR', 'system', -9223372036854775800) RETURNING id)
       SELECT * FROM filled, other`,
      [full, randomUUID()],
    );
    await bank.rows(
      `INSERT INTO bank.entries (journal_id, account_id, amount_cents, currency, kind)
       SELECT $1::uuid, id, posted_cents, 'EUR', 'mint' FROM bank.accounts WHERE id = $2 OR owner = 'mint'`,
      [randomUUID(), full],
    );
    const deposit = await api.call('POST', `/accounts/${full}/deposits`, { amountCents: 100 });
    expect(deposit).toMatchObject({ status: 422, body: { code: 'amount-too-large' } });
    const transfer = await api.transfer({ fromAccountId: giver, toAccountId: full, amountCents: 100 });
    expect(await ended(transfer.body['transferId'], 'compensated')).toMatchObject({ reason: 'amount-too-large' });
    expect(await balances([giver])).toEqual([[1_000, 0]]);
  });

  it('refuses an unknown account and a wrong currency, and writes nothing', async () => {
    const [euros, dollars] = [await api.open(1_000), await api.open(0, 'USD')];
    const nobody = randomUUID();
    expect(await api.transfer({ fromAccountId: euros, toAccountId: nobody, amountCents: 1 })).toMatchObject({
      status: 404,
      body: { code: 'unknown-account', detail: expect.stringContaining(nobody) },
    });
    expect(await api.transfer({ fromAccountId: euros, toAccountId: dollars, amountCents: 1 })).toMatchObject({
      status: 422,
      body: { code: 'wrong-currency' },
    });
    expect(await api.get(`/accounts/${nobody}`)).toMatchObject({ status: 404, body: { code: 'unknown-account' } });
    expect(await api.get(`/transfers/${nobody}`)).toMatchObject({ status: 404, body: { code: 'unknown-transfer' } });
    expect(await bank.count('FROM bank.transfers WHERE from_account_id = $1', [euros])).toBe(0);
  });

  it('G100 pages a statement while entries arrive: none twice, none missing, newest first', async () => {
    const account = await api.open();
    for (let n = 1; n <= 20; n++) await api.call('POST', `/accounts/${account}/deposits`, { amountCents: n });
    const seen: number[] = [];
    let cursor: string | undefined;
    do {
      const more = cursor === undefined ? '' : `&cursor=${cursor}`;
      const [page] = await Promise.all([
        api.get(`/accounts/${account}/statement?limit=3${more}`),
        seen.length === 0 ? undefined : api.call('POST', `/accounts/${account}/deposits`, { amountCents: 1_000 }),
      ]);
      seen.push(...(page.body['entries'] as { amountCents: number }[]).map((entry) => entry.amountCents));
      cursor = page.body['cursor'] as string | undefined;
    } while (cursor !== undefined);
    expect(seen).toEqual(Array.from({ length: 20 }, (_, n) => 20 - n));
  });

  it('answers for operators: health, metrics, OpenAPI, the page', async () => {
    expect(await api.get('/health/live')).toMatchObject({ status: 200, body: { status: 'ok' } });
    await eventually(async () => expect((await api.get('/health/ready')).body).toMatchObject({ status: 'ok' }));
    expect((await api.get('/metrics')).text).toMatch(/headwater_engine_up\{engine="capture bank"\} 1/);
    expect((await api.get('/openapi.json')).body).toMatchObject({ paths: { '/transfers': expect.any(Object) } });
    expect((await api.get('/')).text).toContain('<title>Sample bank</title>');
  });

  it('G43 parks a saga whose undo fails for good, tells why, and sends nothing further', async () => {
    await bank.rows(`CREATE FUNCTION bank.refuse_release() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE EXCEPTION 'the vault is jammed'; END $$`);
    await bank.rows(`CREATE TRIGGER jam BEFORE DELETE ON bank.holds FOR EACH ROW WHEN (OLD.amount_cents = 4343)
      EXECUTE FUNCTION bank.refuse_release()`);
    const [from, to] = [await api.open(10_000), await api.open()];
    const jammed = await api.transfer({
      fromAccountId: from,
      toAccountId: to,
      amountCents: 4_343,
      reference: 'embargo',
    });
    const transferId = String(jammed.body['transferId']);
    const seen = await ended(transferId, 'parked');
    expect(seen['reason']).toMatch(/undo of reserve: .*the vault is jammed.*sanctioned/);
    expect(seen['steps']).toMatchObject([
      { name: 'reserve', status: 'failed' },
      { name: 'screen', status: 'rejected' },
      { name: 'post', status: 'waiting' },
      { name: 'receipt', status: 'waiting' },
    ]);
    expect((await api.get('/metrics')).text).toMatch(/headwater_sagas_parked\{saga="transfer"\} 1/);
    expect((await api.get('/sagas?status=parked')).text).toContain(transferId);
    // Others go on, also from this account; by their end a further command of the parked saga would be in the log.
    const next = await api.transfer({ fromAccountId: from, toAccountId: to, amountCents: 1_000 });
    await ended(next.body['transferId'], 'completed');
    const commands = [
      ...(await bank.records('bank.ledger.commands')),
      ...(await bank.records('bank.compliance.commands')),
      ...(await bank.records('bank.receipts.commands')),
    ].filter((record) => record.value!.toString('utf8').includes(transferId));
    const types = commands.map((record) => record.headers.find(([name]) => name === 'ce_type')![1]!.toString('utf8'));
    expect(types.sort()).toEqual(['ReleaseFunds', 'ReserveFunds', 'ScreenTransfer']);
    await bank.rows('DROP TRIGGER jam ON bank.holds');
  });

  it('tells a transfer whose command is parked at its participant, with the reason', async () => {
    const [from, to] = await Promise.all([api.open(1_000), api.open()]);
    const writer = bank.log.writer({ transactionalId: 'forger-of-accounts' });
    await writer.fence();
    const forged = {
      topic: 'bank.ledger.commands',
      key: Buffer.from(from),
      value: Buffer.from([0xff, 0x00]),
      headers: textHeaders({ ce_id: randomUUID(), ce_type: 'ReserveFunds', ce_source: 'forger' }),
    };
    expect(await writer.transact([forged])).toMatchObject({ outcome: 'committed' });
    await writer.close();
    await eventually(async () =>
      expect(await bank.count('FROM headwater.parked WHERE record_key = $1', [Buffer.from(from)])).toBe(1),
    );
    const sent = await api.transfer({ fromAccountId: from, toAccountId: to, amountCents: 100 });
    const told = await ended(sent.body['transferId'], 'parked');
    expect(told['reason']).toBe('reserve: KEY_PARKED: an earlier record of this key is parked');
    await bank.rows('DELETE FROM headwater.parked WHERE record_key = $1', [Buffer.from(from)]);
    expect((await api.get('/metrics')).text).toMatch(/headwater_processor_up\{processor="saga.transfer"\} 1/);
  });

  it('G51 parks undecodable commands, replies and start events with their bytes, and the partitions go on', async () => {
    const bad = Buffer.from([0xff, 0x00, 0x7b, 0xfe]);
    const writer = bank.log.writer({ transactionalId: 'forger' });
    await writer.fence();
    const key = Buffer.from(`bad-${randomUUID()}`);
    const record = (topic: string, type: string, value: Buffer, partition: number) => ({
      topic,
      partition,
      key,
      value,
      headers: textHeaders({ ce_id: randomUUID(), ce_type: type, ce_source: 'forger', hw_correlation: 'nobody' }),
    });
    const records = [0, 1, 2, 3].flatMap((partition) => [
      record('bank.ledger.commands', 'ReserveFunds', bad, partition),
      record('bank.transfers', 'TransferRequested', bad, partition),
      record('headwater.saga.transfer.replies', 'Reply', bad, partition),
    ]);
    const unknown = {
      ...record('bank.ledger.commands', 'BurnMoney', Buffer.from('{}'), 0),
      key: Buffer.from(randomUUID()),
    };
    expect(await writer.transact([...records, unknown])).toMatchObject({ outcome: 'committed' });
    await writer.close();
    const parked = await eventually(async () => {
      const rows = await bank.rows<{ record_value: Buffer; code: string; reason: string }>(
        `SELECT record_value, code, reason FROM headwater.parked WHERE consumer = 'participant.bank.ledger.commands' ORDER BY partition, log_offset`,
      );
      expect(rows).toHaveLength(5);
      return rows;
    });
    expect(parked.filter((row) => row.record_value.equals(bad))).toHaveLength(4);
    expect(parked.find((row) => row.reason.includes('BurnMoney'))!.reason).toContain('nothing handles it');
    const set = await eventually(async () => {
      const found = (await bank.records('headwater.saga.transfer.parked')).filter((one) => one.key!.equals(key));
      expect(found).toHaveLength(8);
      return found;
    });
    expect(set.every((one) => one.value!.equals(bad))).toBe(true);
    expect(set.every((one) => one.headers.some(([name]) => name === 'hw_parked_reason'))).toBe(true);
    const accounts = await Promise.all(Array.from({ length: 16 }, () => api.open(100)));
    const sent = await Promise.all(
      accounts.map((from, n) =>
        api.transfer({ fromAccountId: from, toAccountId: accounts[(n + 1) % 16]!, amountCents: 100 }),
      ),
    );
    for (const { body } of sent) await ended(body['transferId'], 'completed');
    expect((await api.get('/health/ready')).status).toBe(200);
  });

  it('G72 finds the books balanced after all of it', async () => {
    const { body } = await api.get('/ledger/check');
    expect(body).toMatchObject({ ok: true, currencies: { EUR: { sumCents: 0 } } });
  });

  it('S35 answers 504 in time, naming what is behind, while no projection runs, and holds no connection meanwhile', async () => {
    await api.stop();
    api = await bank.process('api,capture,processors');
    const account = await api.open();
    const { body } = await api.call('POST', `/accounts/${account}/deposits`, { amountCents: 5 });
    const path = `/accounts/${account}?token=${encodeURIComponent(String(body['token']))}`;
    const read = async () => {
      const from = performance.now();
      return { answer: await api.get(path), ms: performance.now() - from };
    };
    // More readers than the pool has connections: whoever held one would keep the others from being answered in time.
    const reads = await Promise.all(Array.from({ length: 30 }, read));
    // So much of it is the machine's: as many requests that wait for nothing.
    const at = performance.now();
    await Promise.all(Array.from({ length: 30 }, () => api.get(`/accounts/${account}`)));
    const ownMs = performance.now() - at;
    for (const { answer, ms } of reads) {
      expect(answer).toMatchObject({ status: 504, body: { code: 'projection-behind' } });
      expect(String(answer.body['detail'])).toContain('balances');
      expect(ms).toBeGreaterThan(4_500);
      expect(ms).toBeLessThan(5_500 + ownMs);
    }
    const busy = `FROM pg_stat_activity WHERE application_name = 'headwater' AND state <> 'idle' AND query LIKE '%frontier%'`;
    expect(await bank.count(busy)).toBe(0);
    const projections = await bank.process('projections');
    await eventually(async () => expect((await api.get(path)).body).toMatchObject({ postedCents: 5 }), {
      timeoutMs: 20_000,
    });
    await projections.stop();
  });
});
