// npm run demo: transfers that succeed, are rejected and are compensated, on a running bank or one started for it; then the ledger check.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { log, root } from './prepare.mjs';

const LIMIT_MS = 30_000;

const running = await findBank(`http://127.0.0.1:${process.env.PORT ?? 3000}`);
const bank = running === undefined ? await startBank() : { url: running, stop: async () => undefined };
let exitCode = 1;
try {
  exitCode = await demo(bank.url);
} catch (error) {
  console.error(`demo: ${error.message}`);
} finally {
  await bank.stop();
}
process.exit(exitCode);

async function demo(url) {
  const post = (path, body) => call(url, path, { method: 'POST', body: JSON.stringify(body) });
  const ada = await post('/accounts', { owner: 'Ada', currency: 'EUR' });
  const grace = await post('/accounts', { owner: 'Grace', currency: 'EUR' });
  await post(`/accounts/${ada.accountId}/deposits`, { amountCents: 100_00 });
  console.log('Ada and Grace have accounts; Ada paid in 100.00 EUR.\n');
  const wanted = [
    { amountCents: 25_00, reference: 'rent', status: 'completed' },
    { amountCents: 900_00, reference: 'a yacht', status: 'rejected' },
    { amountCents: 10_00, reference: 'embargo goods', status: 'compensated' },
    { amountCents: 5_00, reference: 'coffee', status: 'completed' },
  ];
  let held = true;
  for (const { status, ...transfer } of wanted) {
    const body = { fromAccountId: ada.accountId, toAccountId: grace.accountId, currency: 'EUR', ...transfer };
    const { transferId } = await post('/transfers', body);
    const ended = await until(async () => {
      const view = await call(url, `/transfers/${transferId}`);
      return view.status === 'pending' ? undefined : view;
    }, `transfer ${transferId} is still pending`);
    const steps = ended.steps.map((step) => `${step.name} ${step.status}`).join(', ');
    console.log(
      `${(transfer.amountCents / 100).toFixed(2).padStart(7)} EUR "${transfer.reference}": ${ended.status}${ended.reason ? ` (${ended.reason})` : ''}`,
    );
    console.log(`            ${steps}`);
    held &&= expect(`the transfer ends ${status}`, ended.status === status);
  }
  const check = await until(async () => {
    const found = await call(url, '/ledger/check');
    return found.openSagas === 0 ? found : undefined;
  }, 'some transfers are still open');
  const mark = await post(`/accounts/${ada.accountId}/deposits`, { amountCents: 1 });
  const view = await call(url, `/accounts/${ada.accountId}?token=${encodeURIComponent(mark.token)}`);
  console.log(`\nledger check: ${JSON.stringify(check)}`);
  held &&= expect(
    'debits equal credits',
    check.ok && Object.values(check.currencies).every((currency) => currency.sumCents === 0),
  );
  held &&= expect(
    'nothing is held any more',
    Object.values(check.currencies).every((currency) => currency.heldCents === 0),
  );
  held &&= expect('nothing is parked', check.parked === 0);
  held &&= expect('Ada reads her own write: 70.01 EUR', view.postedCents === 70_01);
  console.log(held ? '\nAll invariants hold.' : '\nAn invariant is broken.');
  return held ? 0 : 1;
}

function expect(what, holds) {
  console.log(`  ${holds ? 'ok    ' : 'BROKEN'} ${what}`);
  return holds;
}

async function call(url, path, options = {}) {
  const answer = await fetch(url + path, {
    ...options,
    headers: { 'content-type': 'application/json', 'idempotency-key': randomUUID() },
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`${options.method ?? 'GET'} ${path}: ${answer.status} ${body.detail ?? ''}`);
  return body;
}

async function until(ask, otherwise) {
  const endsAt = Date.now() + LIMIT_MS;
  for (;;) {
    const found = await ask();
    if (found !== undefined) return found;
    if (Date.now() > endsAt) throw new Error(`${otherwise} after ${LIMIT_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function findBank(url) {
  try {
    const answer = await fetch(`${url}/health/live`, { signal: AbortSignal.timeout(1_000) });
    return answer.ok ? url : undefined;
  } catch {
    return undefined;
  }
}

function startBank() {
  log('no bank is running; starting one');
  const child = spawn(process.execPath, [join(root, 'scripts/start.mjs')], { stdio: ['ignore', 'pipe', 'inherit'] });
  const stop = () =>
    new Promise((resolve) => {
      if (child.exitCode !== null) return resolve();
      child.once('exit', resolve);
      child.kill('SIGTERM');
    });
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
