/** Seeded random choices: the same seed gives the same sequence on every machine. Not for secrets. */
export interface Random {
  /** At least 0, below 1. */
  readonly fraction: () => number;
  /** An integer at least 0 and below `below`. */
  readonly below: (below: number) => number;
  readonly chance: (probability: number) => boolean;
  readonly pick: <T>(of: readonly T[]) => T;
  /** A sequence of its own, derived from this one, so that further draws here do not shift it. */
  readonly fork: () => Random;
}

/** mulberry32: 32 bits of state, passes the tests a test's choices need. */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  const bits = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
  const fraction = (): number => bits() / 2 ** 32;
  const below = (limit: number): number => Math.floor(fraction() * limit);
  return {
    fraction,
    below,
    chance: (probability) => fraction() < probability,
    pick: (of) => of[below(of.length)]!,
    fork: () => seededRandom(bits()),
  };
}
