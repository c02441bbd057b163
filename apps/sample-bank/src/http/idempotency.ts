import { createHash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { Database, type Sql, type WalToken } from '@headwater/core';
import { Problem } from './problem.js';

/** An answer and the token of the commit it tells of. */
export type Answered<T> = T & { readonly token: WalToken };

/** Runs a request once per idempotency key: the key, the body's hash and the answer are in the transaction of the work. */
@Injectable()
export class Idempotency {
  constructor(private readonly database: Database) {}

  async once<T extends object>(
    key: string | undefined,
    body: object,
    work: (sql: Sql) => Promise<T>,
  ): Promise<Answered<T>> {
    if (key === undefined) {
      const { result, token } = await this.database.transactionWithToken(work);
      return { ...result, token };
    }
    if (key.length === 0 || key.length > 200)
      throw new Problem(400, 'invalid-idempotency-key', 'Idempotency-Key must have 1 to 200 characters.');
    const bodyHash = createHash('sha256')
      .update(JSON.stringify(sorted(body)))
      .digest('hex');
    await this.database.transaction(async (sql) => {
      // A second request with this key waits here for the first to commit, then finds its row.
      const { rowCount } = await sql.query(
        'INSERT INTO bank.requests (key, body_hash) VALUES ($1, $2) ON CONFLICT DO NOTHING',
        [key, bodyHash],
      );
      if (rowCount === 0) return;
      const response = await work(sql);
      await sql.query('UPDATE bank.requests SET response = $2::jsonb WHERE key = $1', [key, JSON.stringify(response)]);
    });
    return this.#answer<T>(key, bodyHash);
  }

  /** Everybody who asks gets one answer: the first after the commit fixes the token. */
  async #answer<T extends object>(key: string, bodyHash: string): Promise<Answered<T>> {
    const { rows } = await this.database.query<{ body_hash: string; response: T; token: string }>(
      `UPDATE bank.requests SET token = coalesce(token, pg_current_wal_flush_lsn()::text) WHERE key = $1 RETURNING body_hash, response, token`,
      [key],
    );
    const known = rows[0]!;
    if (known.body_hash !== bodyHash) {
      throw new Problem(
        409,
        'idempotency-key-reused',
        'This Idempotency-Key was used with another body. Take a new key for a new request.',
      );
    }
    return { ...known.response, token: known.token };
  }
}

function sorted(body: object): [string, unknown][] {
  return Object.entries(body)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
