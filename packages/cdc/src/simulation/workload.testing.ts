import type { Random } from '@headwater/testing';
import type { Change } from './database.testing.js';

/** What happens in the database, step by step. */
export type Deed =
  | {
      readonly do: 'commit';
      readonly transactions: readonly (readonly Change[])[];
      readonly unseenMs: number;
      readonly pauseMs: number;
    }
  | {
      readonly do: 'emit';
      readonly prefix: string;
      readonly key: string;
      readonly value: string;
      readonly pauseMs: number;
    }
  | { readonly do: 'noise'; readonly bytes: number; readonly pauseMs: number };

/** Keys of a table are few, so that order matters; ids never come back with another large value, so that a re-read has one right answer. */
export class Workload {
  readonly #live: Readonly<Record<string, Set<string>>> = { a: new Set(), b: new Set(), c: new Set() };
  #version = 0;
  #id = 0;

  constructor(private readonly random: Random) {}

  deed(): Deed {
    const { random } = this;
    const pauseMs = random.pick([0, 0, 1, 5, 20, 200, 900]);
    const dice = random.below(20);
    if (dice === 0) return { do: 'noise', bytes: 100 + random.below(100_000), pauseMs };
    if (dice === 1) return { do: 'emit', ...this.#message(), pauseMs };
    // Several at once: their commit records are adjacent.
    const count = random.pick([1, 1, 1, 2, 3]);
    const unseenMs = random.chance(0.5) ? random.below(200) : 0;
    return { do: 'commit', transactions: Array.from({ length: count }, () => this.transaction()), unseenMs, pauseMs };
  }

  transaction(): readonly Change[] {
    const count = this.random.chance(0.05) ? 20 + this.random.below(60) : 1 + this.random.below(5);
    return Array.from({ length: count }, () => this.#change());
  }

  #change(): Change {
    const { random } = this;
    if (random.chance(0.1)) return { do: 'emit', ...this.#message() };
    const table = random.pick(['a', 'b', 'c']);
    const live = this.#live[table]!;
    const v = `v${++this.#version}`;
    if (live.size < 4 || random.chance(0.1)) {
      const id = String(++this.#id);
      live.add(id);
      return { do: 'put', table, id, v, ...(table === 'a' ? {} : { big: `large value of ${id}` }) };
    }
    const id = random.pick([...live]);
    if (table !== 'b' && random.chance(0.2)) {
      live.delete(id);
      if (random.chance(0.5)) return { do: 'delete', table, id };
      const to = String(++this.#id);
      live.add(to);
      return { do: 'rename', table, id, to };
    }
    return { do: 'put', table, id, v, ...(table === 'c' && random.chance(0.3) ? { big: `larger value ${v}` } : {}) };
  }

  #message(): { readonly prefix: string; readonly key: string; readonly value: string } {
    const prefix = this.random.chance(0.8) ? 'headwater' : 'foreign';
    return { prefix, key: String(this.random.below(5)), value: `m${++this.#version}` };
  }
}
