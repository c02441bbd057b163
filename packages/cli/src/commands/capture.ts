import type { Command } from '../command.js';
import { UsageError } from '../usage.js';
import { captureSignal } from './capture-signal.js';

export const capture: Command = {
  name: 'capture',
  usage: [
    ['capture --config FILE [--stats]', 'captures tables into topics until it is stopped (SIGTERM, SIGINT)'],
    ['capture signal snapshot --tables TABLE,… [--where SQL]', 'publishes rows again while changes are streamed'],
    ['capture signal pause|resume|stop-snapshot [--id ID]', 'for a snapshot that is unfinished'],
  ],
  flags: {
    stats: { type: 'boolean' },
    tables: { type: 'string' },
    where: { type: 'string' },
    id: { type: 'string' },
    capture: { type: 'string' },
  },
  async run(invocation) {
    const { operands, flags, json, config, log, out, err, stop } = invocation;
    if (operands[0] === 'signal') return captureSignal(invocation);
    if (operands.length > 0)
      throw new UsageError([`capture ${operands[0]}: no such act.`], 'Type: headwater capture --config FILE [--stats]');
    const [{ captureSettings }, { lineLogger, runCaptures }] = await Promise.all([
      import('../capture/capture-config.js'),
      import('../capture/capture-run.js'),
    ]);
    const captures = captureSettings(config);
    const logger = lineLogger(json, err);
    const onStats = flags['stats'] === true ? { onStats: (stats: object) => out(JSON.stringify(stats)) } : {};
    await runCaptures({ captures, log: log(), logger, signal: stop(), ...onStats });
    return 0;
  },
};
