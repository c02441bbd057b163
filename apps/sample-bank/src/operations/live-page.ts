/** The live page: accounts, transfers on their way through the steps, and the sum that must be zero. Asks the public API once a second. */
export const LIVE_PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sample bank</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
  :root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); --good: #1a7f4b; --bad: #b3261e; --busy: #9a6700 }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
  h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1rem; margin: 2rem 0 .5rem }
  table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line) }
  .n { text-align: right; font-variant-numeric: tabular-nums } .mono { font-family: ui-monospace, monospace; font-size: .85em }
  .step { display: inline-block; padding: 0 .5em; margin-right: .3em; border: 1px solid var(--line); border-radius: 1em; font-size: .85em }
  .done, .completed, .ok { color: var(--good) } .rejected, .failed, .parked, .broken { color: var(--bad) } .sent, .undoing, .running, .compensating { color: var(--busy) }
  .compensated { color: var(--busy) } .undone { text-decoration: line-through; color: var(--busy) } button { font: inherit; padding: .3em .9em }
</style></head><body>
<h1>Sample bank</h1>
<p id="check">…</p>
<p><button id="play">Open two accounts and transfer</button> <span id="said"></span> · <a href="/docs">API</a></p>
<h2>Transfers</h2><table><thead><tr><th>Transfer</th><th>Status</th><th>Steps</th><th class="n">Amount</th></tr></thead><tbody id="sagas"></tbody></table>
<h2>Accounts</h2><table><thead><tr><th>Owner</th><th>Account</th><th class="n">Posted</th><th class="n">Held</th><th class="n">Available</th></tr></thead><tbody id="accounts"></tbody></table>
<script>
const text = (s) => { const span = document.createElement('span'); span.textContent = s; return span.innerHTML.replaceAll('"', '&quot;') };
const money = (cents, currency) => (cents / 100).toLocaleString('en', { minimumFractionDigits: 2 }) + ' ' + text(currency);
const get = async (path) => { const answer = await fetch(path); if (!answer.ok) throw new Error(path + ': ' + answer.status); return answer.json() };
const post = async (path, body) => (await fetch(path, { method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': crypto.randomUUID() }, body: JSON.stringify(body) })).json();
async function show() {
  try {
    const [check, sagas, accounts] = await Promise.all([get('/ledger/check'), get('/sagas?limit=15'), get('/accounts?limit=15')]);
    const sums = Object.entries(check.currencies).map(([currency, c]) => 'sum = ' + c.sumCents + ' ' + text(currency) + ' over ' + c.accounts + ' accounts, held ' + money(c.heldCents, currency));
    document.getElementById('check').innerHTML = '<b class="' + (check.ok ? 'ok">The books balance' : 'broken">The books do not balance') + '</b> · ' + (sums.join(' · ') || 'no accounts yet') + ' · ' + check.openSagas + ' under way · ' + check.parked + ' parked';
    document.getElementById('sagas').innerHTML = sagas.map((s) => '<tr><td class="mono">' + text(s.id.slice(0, 8)) + '</td><td class="' + text(s.status) + '">' + text(s.status + (s.reason ? ': ' + s.reason : '')) + '</td><td>' +
      s.steps.map((step) => '<span class="step ' + text(step.status) + '">' + text(step.name) + '</span>').join('') + '</td><td class="n">' + money(s.startEvent.amountCents, s.startEvent.currency) + '</td></tr>').join('');
    document.getElementById('accounts').innerHTML = accounts.map((a) => '<tr><td>' + text(a.owner) + '</td><td class="mono">' + text(a.accountId.slice(0, 8)) + '</td><td class="n">' + money(a.postedCents, a.currency) + '</td><td class="n">' + money(a.pendingCents, a.currency) + '</td><td class="n">' + money(a.availableCents, a.currency) + '</td></tr>').join('');
  } catch (error) { document.getElementById('check').textContent = 'Not reachable: ' + error.message }
  setTimeout(show, 1000);
}
document.getElementById('play').onclick = async () => {
  const [from, to] = await Promise.all(['Ada', 'Grace'].map((owner) => post('/accounts', { owner, currency: 'EUR' })));
  await post('/accounts/' + from.accountId + '/deposits', { amountCents: 10000 });
  const cases = [[2500, 'rent'], [90000, 'too much'], [1000, 'embargo goods']];
  for (const [amountCents, reference] of cases) await post('/transfers', { fromAccountId: from.accountId, toAccountId: to.accountId, amountCents, currency: 'EUR', reference });
  document.getElementById('said').textContent = 'Sent three: one completes, one is rejected, one is compensated.';
};
show();
</script></body></html>`;
