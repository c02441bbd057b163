import { setImmediate as macrotask } from 'node:timers/promises';
import { HeadwaterError, type Clock } from '@headwater/core';
import { seededRandom, type Random } from './random.js';

/** The clock of one machine in virtual time. Its wall can be set; its elapsed time is that of all. */
export interface MachineClock extends Clock {
  /** Sets the wall clock forward, or back when negative. Waits and elapsed time do not notice. */
  jump(ms: number): void;
  /** Sets the wall clock right. */
  mend(): void;
}

/**
 * Virtual time with a seeded scheduler. Time moves only when everything waits: then it leaps to the next wait that is due. Of several waits
 * that are due at the same moment the seed chooses which goes on first, and everything that one sets off runs before the next is chosen.
 * The same seed and the same code give the same run, as long as all waiting goes through clocks of this one: no sockets, no timers.
 */
export interface VirtualClock extends MachineClock {
  /** The seed's own random choices, apart from those of the scheduler. */
  readonly random: Random;
  /** The clock of another machine: the same elapsed time, a wall of its own. */
  machine(): MachineClock;
  /**
   * Lets time pass until `work` settles, and settles as it does. Rejects with CLOCK_STUCK when nothing is left that could go on, or when
   * `limitMs` of virtual time (default 3,600,000) have passed. One at a time.
   */
  run<T>(work: () => Promise<T>, options?: { readonly limitMs?: number }): Promise<T>;
}

/** 2026-01-01: a date that is no special case. */
const STARTS_AT = Date.UTC(2026, 0, 1);

interface Wait {
  dueAt: number;
  readonly goOn: () => void;
}

export function virtualClock(seed: number): VirtualClock {
  const order = seededRandom(seed);
  const random = order.fork();
  const waits = new Set<Wait>();
  let elapsedMs = 0;

  const wait = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const interrupt = () => {
        entry.dueAt = elapsedMs;
      };
      const entry: Wait = {
        dueAt: elapsedMs + Math.max(0, ms),
        goOn: () => {
          signal?.removeEventListener('abort', interrupt);
          resolve();
        },
      };
      waits.add(entry);
      if (signal?.aborted === true) interrupt();
      else signal?.addEventListener('abort', interrupt, { once: true });
    });

  const machine = (): MachineClock => {
    let aheadMs = 0;
    return {
      now: () => Math.floor(STARTS_AT + elapsedMs + aheadMs),
      elapsed: () => elapsedMs,
      wait,
      breathe: () => wait(0),
      jump: (ms) => void (aheadMs += ms),
      mend: () => void (aheadMs = 0),
    };
  };

  const step = (limitMs: number): void => {
    let next = Infinity;
    let due: Wait[] = [];
    // In one pass: a simulation takes millions of steps.
    for (const entry of waits) {
      const at = Math.max(entry.dueAt, elapsedMs);
      if (at > next) continue;
      if (at < next) due = [];
      next = at;
      due.push(entry);
    }
    if (next === Infinity) throw stuck(`at ${elapsedMs} ms everything waits, and for nothing that time would bring`);
    if (next > limitMs) throw stuck(`the work has not ended after ${limitMs} ms of virtual time`);
    elapsedMs = next;
    const chosen = order.pick(due);
    waits.delete(chosen);
    chosen.goOn();
  };

  return {
    ...machine(),
    random,
    machine,
    async run<T>(work: () => Promise<T>, { limitMs = 3_600_000 } = {}): Promise<T> {
      const until = elapsedMs + limitMs;
      let end: { readonly value: T } | { readonly error: unknown } | undefined;
      void work().then(
        (value) => void (end = { value }),
        (error: unknown) => void (end = { error }),
      );
      for (;;) {
        // All promises that can go on have gone on before the next macrotask.
        await macrotask();
        if (end !== undefined) break;
        step(until);
      }
      if ('error' in end) throw end.error;
      return end.value;
    },
  };
}

function stuck(what: string): HeadwaterError {
  return new HeadwaterError('CLOCK_STUCK', `${what}. Look for a promise that nobody settles.`);
}
