import type { CaptureRemains } from '@headwater/cdc';
import type { Command } from '../command.js';
import { UsageError } from '../usage.js';

export const drop: Command = {
  name: 'drop',
  usage: [
    [
      'drop --config FILE [--dry-run]',
      'removes slot, publication, position, what is parked and the topics about captures; their records stay',
    ],
  ],
  async run({ operands, flags, config, log, say, ask }) {
    if (operands.length > 0)
      throw new UsageError([`drop ${operands[0]}: no such thing.`], 'Type: headwater drop --config FILE');
    const [{ captureSettings }, { captureRemains, dropCapture }] = await Promise.all([
      import('../capture/capture-config.js'),
      import('@headwater/cdc'),
    ]);
    const captures = captureSettings(config).map((settings) => ({ ...settings, log: log() }));
    // All are looked at before anything is removed: one that runs keeps the others from being torn down by half.
    const found = await Promise.all(captures.map((capture) => captureRemains(capture)));
    const dryRun = flags['dry-run'] === true;
    const left = captures.filter((_, i) => listed(found[i]!).length > 0);
    if (!dryRun && left.length > 0 && flags['yes'] !== true) {
      const what = captures.map(({ name }, i) => `${name}: ${listed(found[i]!).join(', ')}`).join('; ');
      if (!(await ask(`Remove ${what}?`))) {
        say({ removed: [] }, 'Nothing was removed.');
        return 1;
      }
    }
    for (const [i, capture] of captures.entries()) {
      const removed = dryRun ? found[i]! : await dropCapture(capture);
      const { name, slot, publication } = capture;
      say(
        { capture: name, slot, publication, [dryRun ? 'would' : 'removed']: listed(removed) },
        told(name, removed, dryRun),
      );
    }
    return 0;
  },
};

const listed = (remains: CaptureRemains): string[] =>
  (['slot', 'publication', 'parked', 'position', 'schemas', 'transactions'] as const).filter((part) => remains[part]);

function told(name: string, remains: CaptureRemains, dryRun: boolean): string {
  const parts = listed(remains);
  if (parts.length === 0) return `${name}: there is no slot, publication or position any more. Nothing to remove.`;
  return dryRun
    ? `${name}: would remove ${parts.join(', ')}. Nothing was changed.`
    : `${name}: removed ${parts.join(', ')}. The topics of its tables are kept.`;
}
