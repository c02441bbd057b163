import type { LogRecord } from '@headwater/core';
import type { Random } from '../virtual-clock/random.js';

/** What one input record asks of the processor under simulation. */
export type Deed =
  | { readonly deed: 'add'; readonly n: number }
  | { readonly deed: 'forget' }
  /** Fails as often as a handler may fail, then works like `add`. */
  | { readonly deed: 'flaky'; readonly n: number }
  | { readonly deed: 'slow'; readonly n: number; readonly ms: number }
  | { readonly deed: 'poison' }
  | { readonly deed: 'broken' }
  /** Sends what the log refuses for good. */
  | { readonly deed: 'big' }
  | { readonly deed: 'timer'; readonly id: string; readonly atMs: number }
  | { readonly deed: 'cancel'; readonly id: string };

export interface Workload {
  readonly partitions: number;
  readonly topics: readonly string[];
  /** In the order of production; each inner list is one transaction of the feeder. */
  readonly transactions: readonly FeederTransaction[];
}

export interface FeederTransaction {
  readonly records: readonly { readonly topic: string; readonly key: string; readonly deed: Deed }[];
  readonly ends: 'commit' | 'abort';
  /** How long the feeder rests after it. */
  readonly pauseMs: number;
}

/** Further than any jump of a clock: such a timer never fires. */
const FAR_MS = 10 * 86_400_000;

/** Timers are due this soon after the start, or never. */
export const LAST_TIMER_MS = 15_000;

/** `startsAt`: wall time at the start of the simulation. */
export function workload(random: Random, startsAt: number): Workload {
  const partitions = 1 + random.below(3);
  const topics = random.chance(0.3) ? ['left', 'right'] : ['left'];
  const keys = topics.flatMap((topic) =>
    Array.from({ length: 3 + random.below(4) }, (_, n) => ({ topic, key: `${topic}-${n}` })),
  );
  const far: { topic: string; key: string; id: string }[] = [];
  let timers = 0;
  const next = () => {
    const { topic, key } = random.pick(keys);
    const soon = startsAt + random.below(LAST_TIMER_MS);
    const dice = random.below(100);
    if (dice < 69) return { topic, key, deed: { deed: 'add', n: 1 + random.below(9) } } as const;
    if (dice < 70) return { topic, key, deed: { deed: 'big' } } as const;
    if (dice < 74) return { topic, key, deed: { deed: 'forget' } } as const;
    if (dice < 79) return { topic, key, deed: { deed: 'flaky', n: 1 } } as const;
    if (dice < 83) return { topic, key, deed: { deed: 'slow', n: 1, ms: random.pick([30, 300, 3_000]) } } as const;
    if (dice < 84) return { topic, key, deed: { deed: 'slow', n: 1, ms: 17_000 } } as const;
    if (dice < 86) return { topic, key, deed: { deed: 'poison' } } as const;
    if (dice < 88) return { topic, key, deed: { deed: 'broken' } } as const;
    if (dice < 93) return { topic, key, deed: { deed: 'timer', id: `timer-${timers++}`, atMs: soon } } as const;
    if (dice < 96 || far.length === 0) {
      const id = `timer-${timers++}`;
      far.push({ topic, key, id });
      return { topic, key, deed: { deed: 'timer', id, atMs: startsAt + FAR_MS } } as const;
    }
    // The far timer is moved or cancelled by a record of its own key, hence behind the one that set it.
    const [{ topic: ofTopic, key: ofKey, id }] = far.splice(random.below(far.length), 1) as [(typeof far)[number]];
    const deed = random.chance(0.5) ? ({ deed: 'cancel', id } as const) : ({ deed: 'timer', id, atMs: soon } as const);
    return { topic: ofTopic, key: ofKey, deed };
  };
  const transactions = Array.from({ length: 8 + random.below(12) }, (): FeederTransaction => {
    const ends = random.chance(0.15) ? 'abort' : 'commit';
    const known = [...far];
    const records = Array.from({ length: 1 + random.below(6) }, next);
    // What an aborted transaction did to far timers did not happen.
    if (ends === 'abort') far.splice(0, far.length, ...known);
    return { records, ends, pauseMs: random.pick([0, 5, 50, 500, 2_500]) };
  });
  return { partitions, topics, transactions };
}

export function deedOf(record: LogRecord): Deed {
  return JSON.parse(record.value!.toString()) as Deed;
}
