/** Every request a transaction consists of with transaction.version 2, and how often it or its reply is lost. */
const RATES = { InitProducerId: 0.3, Produce: 0.02, TxnOffsetCommit: 0.03, EndTxn: 0.35 };

/**
 * Chooses what is lost, by `random`. `blackOut(clientId)` loses every reply to EndTxn of one worker until it fences: a commit that stays
 * unknown. Counts what struck, replies only, by request.
 */
export function losses(random) {
  const lost = Object.fromEntries(Object.keys(RATES).map((name) => [name, 0]));
  const dark = new Set();
  const reply = (act, apiName) => ({ at: 'response', act, onStrike: () => void lost[apiName]++ });
  return {
    lost,
    blackOut: (clientId) => void dark.add(clientId),
    decide({ apiName, clientId }) {
      if (apiName === 'InitProducerId') dark.delete(clientId);
      if (apiName === 'EndTxn' && dark.has(clientId)) return reply('close', apiName);
      if (random() >= (RATES[apiName] ?? 0)) return undefined;
      // A swallowed frame costs the client its time-out, a cut connection nothing: mostly cuts, so that there can be many.
      const act = random() < 0.05 ? 'drop' : random() < 0.5 ? 'close' : 'reset';
      if (random() < 0.85) return reply(act, apiName);
      return { at: 'request', act: random() < 0.3 ? 'keep' : act };
    },
  };
}

export function shuffled(list, random) {
  return list
    .map((value) => ({ value, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}
