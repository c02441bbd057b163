import type { LogAdmin } from '@headwater/core';
import { eventually } from './eventually.js';

/**
 * Where each partition of the topic starts and ends, once no transaction is open on it. A commit is answered before its markers are
 * written (KIP-98), so the last stable offset may stand before a record that was committed a moment ago. Throws when a transaction is
 * still open after `timeoutMs`.
 */
export function settledOffsets(
  log: { readonly admin: Pick<LogAdmin, 'offsets'> },
  topic: string,
  { timeoutMs = 30_000 }: { readonly timeoutMs?: number } = {},
): ReturnType<LogAdmin['offsets']> {
  return eventually(
    async () => {
      const offsets = await log.admin.offsets(topic);
      for (const { partition, lastStable, high } of offsets)
        if (lastStable < high)
          throw new Error(`a transaction is open on ${topic}/${partition}, from offset ${lastStable} of ${high}`);
      return offsets;
    },
    { timeoutMs },
  );
}
