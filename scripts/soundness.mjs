// npm run soundness -- [--seed S] [--records N] [--kills K] [--lost L]: exactly f(input) under kills, pauses, broker kills and lost replies.
// Fails also when fewer than L replies to EndTxn were lost. The last line is the result as JSON.
import { parseArgs } from 'node:util';
import { log, prepare, report, usage } from './prepare.mjs';

const exitCode = await main().catch(report);
process.stdout.write('', () => process.exit(exitCode));

async function main() {
  const number = (value) => {
    if (!/^\d+$/.test(value)) throw usage(`"${value}" is not a number.`);
    return Number(value);
  };
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      records: { type: 'string', default: '100000' },
      kills: { type: 'string', default: '100' },
      lost: { type: 'string', default: '0' },
    },
  });
  const [seed, records, kills, lost] = [values.seed, values.records, values.kills, values.lost].map(number);
  await prepare();
  log(`Soundness: seed ${seed}, ${records} records, ${kills} kills`);
  const { soundness } = await import('../test/soundness/run.mjs');
  const result = await soundness({ seed, records, kills, log });
  console.log(JSON.stringify(result));
  if (result.lostReplies.EndTxn >= lost) return 0;
  log(`Only ${result.lostReplies.EndTxn} of ${lost} replies to EndTxn were lost.`);
  return 1;
}
