import { emitContext, emitText } from '@headwater/core';
import type { Sql } from '@headwater/core';
import type { Random } from '@headwater/testing';
import type { Client } from 'pg';

/** `a` and `b` for all sessions; `t` and `d` are altered and emptied, each by one session alone, which would wait for itself otherwise. */
export const LOAD_TABLES = `
  CREATE TABLE a (id int PRIMARY KEY, s int, b text);
  CREATE TABLE b (id int PRIMARY KEY, big text, n int);
  ALTER TABLE b ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE t (id int PRIMARY KEY, b text);
  CREATE TABLE d (id int PRIMARY KEY, b text);
  CREATE TABLE unpublished (b text)`;

/** One session with transactions large and small, nested to any depth, that are committed, rolled back, and rolled back in part. */
export class InterleavedSession {
  readonly #sql: Sql;
  #next: number;
  #columns = 0;
  #savepoints: number[] = [];
  #open = false;
  #names = 0;

  constructor(
    private readonly client: Client,
    private readonly random: Random,
    private readonly number: number,
    private readonly out: string,
  ) {
    this.#next = number * 1_000_000;
    this.#sql = client as unknown as Sql;
  }

  async step(): Promise<void> {
    const { random } = this;
    if (!this.#open) return this.#begin();
    const dice = random.fraction();
    if (dice < 0.5) return this.#rows();
    if (dice < 0.58) return this.#emit();
    if (dice < 0.68) return this.#savepoint();
    if (dice < 0.76) return this.#end('RELEASE');
    if (dice < 0.84) return this.#end('ROLLBACK TO');
    if (dice < 0.88) return this.#alter();
    if (dice < 0.91) return this.#truncate();
    if (dice < 0.97) return this.finish('COMMIT');
    return this.finish('ROLLBACK');
  }

  async finish(how: 'COMMIT' | 'ROLLBACK'): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    this.#savepoints = [];
    await this.client.query(how);
  }

  async #begin(): Promise<void> {
    this.#open = true;
    await this.client.query('BEGIN');
    if (this.random.chance(0.4)) await emitContext(this.#sql, { hw_actor: `session ${this.number}` });
    await this.#insert(1);
  }

  async #rows(): Promise<void> {
    const { client, random } = this;
    const [from, to] = [this.#next - 400, this.#next];
    switch (random.below(6)) {
      case 0:
        await client.query(`UPDATE a SET s = s + 1 WHERE id BETWEEN $1 AND $2`, [from, to]);
        return;
      case 1:
        await client.query(`DELETE FROM a WHERE id BETWEEN $1 AND $1::int + 50`, [from]);
        return;
      case 2:
        // What is large and unchanged is not in the WAL.
        await client.query(`UPDATE b SET n = n + 1 WHERE id BETWEEN $1 AND $2`, [from, to]);
        return;
      case 3:
        await client.query(`INSERT INTO unpublished SELECT repeat('u', 500) FROM generate_series(1, 200)`);
        return;
      default:
        await this.#insert(random.pick([1, 5, 60, 400]));
    }
  }

  async #insert(rows: number): Promise<void> {
    const first = this.#next + 1;
    this.#next += rows;
    const values = [first, this.#next];
    await this.client.query(
      `INSERT INTO a SELECT g, 0, repeat('a', 150) FROM generate_series($1::int, $2::int) g`,
      values,
    );
    if (this.random.chance(0.3))
      await this.client.query(
        `INSERT INTO b SELECT g, repeat('large', 600), 0 FROM generate_series($1::int, least($2::int, $1::int + 5)) g`,
        values,
      );
    const own = ['t', 'd'][this.number];
    if (own !== undefined && this.random.chance(0.4)) await this.#own(own);
  }

  async #own(table: string): Promise<void> {
    const first = this.#next + 1;
    this.#next += 21;
    await this.client.query(
      `INSERT INTO ${table} (id, b) SELECT g, 'own' FROM generate_series($1::int, $1::int + 20) g`,
      [first],
    );
  }

  /** Between rows of its own subtransaction, where its place is known. */
  async #emit(): Promise<void> {
    await this.#insert(1);
    const key = `${this.number}-${++this.#names}`;
    await emitText(this.#sql, { topic: this.out, key, value: JSON.stringify({ key }), headers: { of: 'load' } });
    await this.#insert(1);
  }

  async #savepoint(): Promise<void> {
    const name = ++this.#names;
    this.#savepoints.push(name);
    await this.client.query(`SAVEPOINT s${name}`);
  }

  /** Of any that is open: those inside of it go with it. */
  async #end(how: 'RELEASE' | 'ROLLBACK TO'): Promise<void> {
    if (this.#savepoints.length === 0) return;
    const depth = this.random.below(this.#savepoints.length);
    await this.client.query(`${how} SAVEPOINT s${this.#savepoints[depth]}`);
    this.#savepoints.length = how === 'RELEASE' ? depth : depth + 1;
  }

  async #alter(): Promise<void> {
    if (this.number !== 1) return this.#insert(60);
    await this.client.query(
      `ALTER TABLE d ADD COLUMN c${++this.#columns}_${++this.#names} int DEFAULT ${this.#columns}`,
    );
    await this.#own('d');
  }

  async #truncate(): Promise<void> {
    if (this.number !== 0) return this.#insert(60);
    await this.client.query('TRUNCATE t');
    await this.#own('t');
  }
}
