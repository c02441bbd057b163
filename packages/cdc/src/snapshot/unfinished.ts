import type { Log } from '@headwater/core';
import { readPositionIfAny } from '../position.js';

/** The ids of the snapshots that a capture has begun and not finished, from its position: it need not run. */
export async function unfinishedSnapshots(of: {
  readonly name: string;
  readonly positionTopic: string;
  readonly log: Log;
}): Promise<readonly string[]> {
  return (await readPositionIfAny(of.log, of.positionTopic, of.name))?.snapshots ?? [];
}
