import type { CallFault, LogCall } from '../memory-log/connection.js';
import { HeadwaterError } from '@headwater/core';
import type { Random } from '../virtual-clock/random.js';

/** What goes wrong with the requests of one instance, how often. Drawn anew for every seed, so that some see nothing of a kind and some a lot. */
export interface Mischief {
  readonly loss: number;
  readonly kill: number;
  readonly delay: number;
  readonly lateMarkers: number;
}

export function mischief(random: Random): Mischief {
  const rate = (rates: readonly number[]) => random.pick(rates);
  return {
    loss: rate([0, 0.01, 0.03]),
    kill: rate([0, 0.004, 0.015]),
    delay: rate([0, 0.1, 0.5]),
    lateMarkers: rate([0, 0.3, 0.7]),
  };
}

/** Longer than a session: what arrives then meets new owners. */
export const LATEST_MS = 7_500;

/** One request's fate. `kill`: the process dies, before the request is sent or after. */
export type Fate = CallFault | { readonly act: 'kill'; readonly when: 'before' | 'after' } | undefined;

export function fateOf(call: LogCall, { loss, kill }: Mischief, random: Random): Fate {
  if (random.chance(kill)) return { act: 'kill', when: random.pick(['before', 'after']) };
  // Transactions are what this is about: their requests are lost more often than fetches and heartbeats.
  const often = TRANSACTIONAL.has(call.request) ? 3 : 0.3;
  if (!random.chance(loss * often)) return undefined;
  const act = random.pick(['lose-request', 'lose-answer', 'late-request', 'refuse'] as const);
  if (act === 'late-request') return { act, lateMs: random.pick([20, 500, 900, 1_500, 4_000, LATEST_MS]) };
  if (act === 'refuse' && call.request === 'poll')
    return { act, error: new HeadwaterError('KAFKA_UNREACHABLE', 'no answer', { retryable: true }) };
  return { act: act === 'refuse' ? 'lose-answer' : act };
}

const TRANSACTIONAL = new Set<LogCall['request']>(['append', 'offsets', 'commit', 'abort', 'fence']);
