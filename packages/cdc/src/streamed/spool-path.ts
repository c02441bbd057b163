import { join } from 'node:path';
import type { ResolvedOptions } from '../capture.options.js';
import type { Position } from '../position.js';

/** Where the spools of one slot lie: no other slot of any cluster has the same, so that whoever holds the slot may remove what is there. */
export function spoolPath(
  { spoolDirectory, slot }: Pick<ResolvedOptions, 'spoolDirectory' | 'slot'>,
  { systemId }: Pick<Position, 'systemId'>,
): string {
  return join(spoolDirectory, `headwater-${systemId}-${slot}`);
}
