import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';

const KEYS = 300;
/** Deadlock, key taken: what a busy database answers. The transaction is rolled back, and that belongs to the load. */
const EXPECTED = new Set(['40P01', '23505']);

/** Tables whose every committed change a trigger writes into `journal`, in the order of each key. */
export function schema(tables) {
  return `
    CREATE TABLE journal (n bigserial PRIMARY KEY, tbl text, op text, xid bigint, id int, v bigint, b text);
    CREATE SEQUENCE versions;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE x bigint := pg_current_xact_id()::text::bigint & 4294967295;
    BEGIN
      IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.id <> NEW.id) THEN
        INSERT INTO journal (tbl, op, xid, id) VALUES (TG_TABLE_NAME, 'd', x, OLD.id);
      END IF;
      IF TG_OP <> 'DELETE' THEN
        INSERT INTO journal (tbl, op, xid, id, v, b) VALUES
          (TG_TABLE_NAME, CASE TG_OP WHEN 'INSERT' THEN 'c' ELSE 'u' END, x, NEW.id, NEW.v, NEW.b);
      END IF;
      RETURN NULL;
    END $$;
    ${tables
      .map(
        (table) => `
    CREATE TABLE ${table} (id int PRIMARY KEY, v bigint NOT NULL, b text NOT NULL);
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON ${table} FOR EACH ROW EXECUTE FUNCTION note();`,
      )
      .join('')}`;
}

/** Writers that change the tables in transactions of every size until stopped. */
export class Load {
  #stopped = false;
  #writers;
  transactions = 0;

  constructor({ url, tables, writers, pauseMs, random }) {
    this.#writers = Array.from({ length: writers }, () => this.#write(url, tables, pauseMs, random));
  }

  /** Rejects with what a writer failed with. */
  async stop() {
    this.#stopped = true;
    await Promise.all(this.#writers);
  }

  async #write(url, tables, pauseMs, random) {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      while (!this.#stopped) {
        await transaction(client, tables, random);
        this.transactions += 1;
        await delay(random() * 2 * pauseMs);
      }
    } finally {
      await client.end();
    }
  }
}

async function transaction(client, tables, random) {
  const statements = Array.from({ length: 1 + Math.floor(random() ** 3 * 5) }, () => statement(tables, random));
  const undone = random() < 0.15;
  try {
    await client.query('BEGIN');
    for (const text of statements) await client.query(text);
    if (undone) {
      await client.query(`SAVEPOINT s`);
      await client.query(statement(tables, random));
      await client.query(random() < 0.7 ? 'ROLLBACK TO s' : 'ROLLBACK');
    }
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    if (!EXPECTED.has(error.code)) throw error;
  }
}

function statement(tables, random) {
  const table = tables[Math.floor(random() * tables.length)];
  const key = () => 1 + Math.floor(random() * KEYS);
  const upsert = (from, count) => `INSERT INTO ${table} (id, v, b)
    SELECT g, nextval('versions'), repeat(md5(g::text), 1 + g % 5) FROM generate_series(${from}, ${from + count - 1}) g
    ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v, b = EXCLUDED.b || 'u'`;
  const kind = random();
  if (kind < 0.4) return upsert(key(), 1);
  if (kind < 0.6) return upsert(key(), 2 + Math.floor(random() * 20));
  if (kind < 0.62) return upsert(1_000, 200 + Math.floor(random() * 800));
  if (kind < 0.75)
    return `UPDATE ${table} SET v = nextval('versions') WHERE id BETWEEN ${key()} AND ${key()} AND id % 7 = 0`;
  if (kind < 0.85) return `UPDATE ${table} SET v = nextval('versions'), id = ${key()} WHERE id = ${key()}`;
  return `DELETE FROM ${table} WHERE id IN (${key()}, ${key()}, ${key()})`;
}
