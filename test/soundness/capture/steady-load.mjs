import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';

const KEYS = 20_000;

/** Writers that make `rate` changes a second together, in transactions of 1 to 20 rows, until stopped. */
export class SteadyLoad {
  #stopped = false;
  #writers;
  changes = 0;

  constructor({ url, tables, writers, rate, random }) {
    this.#writers = Array.from({ length: writers }, () => this.#write(url, tables, rate / writers, random));
  }

  /** Rejects with what a writer failed with. */
  async stop() {
    this.#stopped = true;
    await Promise.all(this.#writers);
  }

  async #write(url, tables, rate, random) {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const startedAt = performance.now();
    let made = 0;
    try {
      while (!this.#stopped) {
        const { rowCount } = await client.query(statement());
        made += rowCount ?? 0;
        this.changes += rowCount ?? 0;
        const earlyMs = (made / rate) * 1_000 - (performance.now() - startedAt);
        if (earlyMs > 5) await delay(earlyMs);
      }
    } finally {
      await client.end();
    }

    /** Ids in one order, so that two writers wait for each other and never block each other for good. */
    function statement() {
      const table = random.pick(tables);
      const count = 1 + random.below(20);
      const from = random.below(KEYS);
      const ids = `generate_series(${from}, ${from + count - 1})`;
      if (random.chance(0.1))
        return `DELETE FROM ${table} WHERE id IN (SELECT id FROM ${table} WHERE id IN (SELECT ${ids}) ORDER BY id FOR UPDATE)`;
      return `INSERT INTO ${table} (id, v, b) SELECT g, ${random.below(1e9)}, repeat(md5(g::text), 4) FROM ${ids} g
              ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v`;
    }
  }
}
