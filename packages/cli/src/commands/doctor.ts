import type { Finding } from '@headwater/cdc';
import type { Command } from '../command.js';
import { UsageError } from '../usage.js';

export const doctor: Command = {
  name: 'doctor',
  usage: [['doctor --config FILE', 'what captures lack, each with its fix; 2 when something does']],
  async run({ operands, config, log, say }) {
    if (operands.length > 0)
      throw new UsageError([`doctor ${operands[0]}: no such thing.`], 'Type: headwater doctor --config FILE');
    const [{ captureSettings }, { examine }] = await Promise.all([
      import('../capture/capture-config.js'),
      import('@headwater/cdc'),
    ]);
    let ill = false;
    for (const capture of captureSettings(config)) {
      const { findings, facts } = await examine({ ...capture, log: log() });
      say({ capture: capture.name, findings, facts }, report(capture.name, findings));
      ill ||= findings.some(({ severity }) => severity !== 'advice');
    }
    return ill ? 2 : 0;
  },
};

function report(capture: string, findings: readonly Finding[]): string {
  const count = findings.filter(({ severity }) => severity !== 'advice').length;
  const lines = findings.flatMap(({ severity, message, fix }) => [`  ${severity}: ${message}`, `    ${fix}`]);
  return [`${capture}: ${count === 0 ? 'well' : `${count} finding(s)`}`, ...lines].join('\n');
}
