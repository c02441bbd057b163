import type { Command } from '../command.js';
import { UsageError } from '../usage.js';

export const capture: Command = {
  name: 'capture',
  usage: [['capture --config FILE [--stats]', 'captures tables into topics until it is stopped (SIGTERM, SIGINT)']],
  flags: { stats: { type: 'boolean' } },
  async run({ operands, flags, json, config, log, out, err, stop }) {
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
