// Transfers: p50 and p99 from accepted to completed at 10/s, then transfers/s with 64 in flight.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { createRequire } from 'node:module';

const STEADY_SECONDS = 20;
const LOAD_SECONDS = 20;
const IN_FLIGHT = 64;
const ACCOUNTS = 64;

export default async function run({ databaseUrl, kafkaBrokers, root, log }) {
  const bank = await startBank({ databaseUrl, kafkaBrokers, root });
  const { Pool } = createRequire(join(root, 'packages/core/package.json'))('pg');
  const pool = new Pool({ connectionString: databaseUrl, max: 2 });
  try {
    const accounts = await openAccounts(bank.url);
    await steady(bank.url, pool, accounts, 20, 2); // warm-up: code is compiled, connections are open
    log(`10 transfers/s for ${STEADY_SECONDS} s`);
    const latencies = await steady(bank.url, pool, accounts, 10, STEADY_SECONDS);
    log(`${IN_FLIGHT} in flight for ${LOAD_SECONDS} s`);
    const loaded = await load(bank.url, pool, accounts);
    const check = await (await fetch(`${bank.url}/ledger/check`)).json();
    if (!check.ok) throw new Error(`the books do not balance: ${JSON.stringify(check)}`);
    return {
      setup: {
        steadyPerSecond: 10,
        steadySeconds: STEADY_SECONDS,
        inFlight: IN_FLIGHT,
        loadSeconds: LOAD_SECONDS,
        accounts: ACCOUNTS,
        roles: 'all in one process',
        steps: 4,
      },
      ours: {
        transfers: latencies.length,
        p50Ms: percentile(latencies, 0.5),
        p99Ms: percentile(latencies, 0.99),
        transfersPerSecond: Math.round(loaded / LOAD_SECONDS),
        sumCents: check.currencies.EUR.sumCents,
      },
    };
  } finally {
    await pool.end();
    await bank.stop();
  }
}

/** Accepted: the client has its 202. Completed: the saga's own time of its last step, on the same machine's clock. */
async function steady(url, pool, accounts, perSecond, seconds) {
  const accepted = new Map();
  const requests = [];
  const startedAt = Date.now();
  for (let i = 0; i < perSecond * seconds; i++) {
    await until(startedAt + (i * 1000) / perSecond);
    requests.push(transfer(url, accounts, i).then((id) => accepted.set(id, Date.now())));
  }
  await Promise.all(requests);
  const ended = await completedAt(pool, [...accepted.keys()]);
  return [...accepted].map(([id, at]) => ended.get(id) - at).sort((a, b) => a - b);
}

/** Keeps 64 transfers in flight. One query per 20 ms learns which have ended: asking over HTTP would load the process that is measured. */
async function load(url, pool, accounts) {
  const ids = [];
  const waiting = new Map();
  let next = 0;
  let completed = 0;
  const endsAt = Date.now() + LOAD_SECONDS * 1000;
  const lane = async () => {
    while (Date.now() < endsAt) {
      const id = await transfer(url, accounts, next++);
      ids.push(id);
      await new Promise((resolve) => waiting.set(id, resolve));
    }
  };
  const watch = async () => {
    while (waiting.size > 0 || Date.now() < endsAt) {
      const { rows } = await pool.query(`SELECT id FROM headwater.sagas WHERE id = ANY($1) AND status = 'completed'`, [
        [...waiting.keys()],
      ]);
      for (const { id } of rows) {
        if (Date.now() < endsAt) completed += 1;
        waiting.get(id)();
        waiting.delete(id);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await Promise.all([watch(), ...Array.from({ length: IN_FLIGHT }, lane)]);
  await completedAt(pool, ids);
  return completed;
}

async function completedAt(pool, ids) {
  const giveUpAt = Date.now() + 60_000;
  for (;;) {
    const { rows } = await pool.query(
      `SELECT id, (extract(epoch FROM updated_at) * 1000)::float8 AS at FROM headwater.sagas WHERE id = ANY($1) AND status = 'completed'`,
      [ids],
    );
    if (rows.length === ids.length) return new Map(rows.map((row) => [row.id, row.at]));
    if (Date.now() > giveUpAt)
      throw new Error(`${ids.length - rows.length} of ${ids.length} transfers did not complete`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function transfer(url, accounts, i) {
  const body = {
    fromAccountId: accounts[i % ACCOUNTS],
    toAccountId: accounts[(i + 1) % ACCOUNTS],
    amountCents: 1 + (i % 100),
    currency: 'EUR',
  };
  const answer = await post(url, '/transfers', body);
  return answer.transferId;
}

async function openAccounts(url) {
  const accounts = [];
  for (let i = 0; i < ACCOUNTS; i++) {
    const { accountId } = await post(url, '/accounts', { owner: `bench ${i}`, currency: 'EUR' });
    await post(url, `/accounts/${accountId}/deposits`, { amountCents: 100_000_00 });
    accounts.push(accountId);
  }
  return accounts;
}

async function post(url, path, body) {
  const answer = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': randomUUID() },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

const until = (at) => new Promise((resolve) => setTimeout(resolve, Math.max(0, at - Date.now())));
const percentile = (sorted, p) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]);

function startBank({ databaseUrl, kafkaBrokers, root }) {
  const child = spawn(process.execPath, [join(root, 'apps/sample-bank/dist/main.js')], {
    env: {
      ...process.env,
      DATABASE_URL: databaseUrl,
      KAFKA_BROKERS: kafkaBrokers.join(','),
      PORT: '0',
      HEADWATER_ROLES: 'api,capture,processors,projections',
    },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  const stop = () =>
    new Promise((resolve) =>
      child.exitCode === null ? (child.once('exit', resolve), child.kill('SIGTERM')) : resolve(),
    );
  return new Promise((resolve, reject) => {
    let said = '';
    child.once('exit', (code) => reject(new Error(`the bank ended with code ${code}`)));
    child.stdout.on('data', (chunk) => {
      said += chunk;
      const url = /ready at (\S+)/.exec(said)?.[1];
      if (url !== undefined) resolve({ url, stop });
    });
  });
}
