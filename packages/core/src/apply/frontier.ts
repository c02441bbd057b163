import { HeadwaterError, errorMessage } from '../errors/headwater.error.js';
import type { Log } from '../log/log.js';
import type { Health, Logger, Running } from '../lifecycle/running.js';
import type { Database, Sql, WalToken } from '../postgres/database.js';
import { systemClock, type Clock } from '../clock/clock.js';

export interface FrontierOptions {
  readonly log: Log;
  readonly database: Database;
  readonly logger: Logger;
  readonly consumer: string;
  readonly topics: readonly string[];
  /** The position topic of the capture that feeds the topics. */
  readonly positionTopic: string;
  readonly clock?: Clock;
}

const STEP_MS = 5;

/**
 * Publishes, for one consumer, up to which LSN everything captured is applied: position read (L), then the high watermarks of all topics (V),
 * then a wait until the offset rows have reached V, then `frontier = L`. High watermarks, not stable offsets: the position's commit marker may be
 * visible before a marker on a data partition, and a record below the high watermark is waited for in either case.
 * Several instances may run it; the frontier only rises.
 */
export class Frontier implements Running {
  readonly #options: FrontierOptions;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  readonly #run: Promise<void>;
  #lsn = '0/0';
  #lastError: string | undefined;

  constructor(options: FrontierOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#run = this.#loop();
  }

  health(): Health {
    return {
      name: `frontier ${this.#options.consumer}`,
      status: this.#lastError === undefined ? 'up' : 'starting',
      facts: { lsn: this.#lsn, lastError: this.#lastError },
    };
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#run;
  }

  async #loop(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.#follow();
      } catch (error) {
        // Named boundary: a frontier that fails delays reads with a token, nothing else; it starts again.
        this.#lastError = errorMessage(error);
        this.#options.logger.warn(`frontier ${this.#options.consumer}: ${this.#lastError}`);
        await this.#clock.wait(500, this.#stop.signal);
      }
    }
  }

  async #follow(): Promise<void> {
    const { log, positionTopic } = this.#options;
    const { signal } = this.#stop;
    const reader = log.reader();
    try {
      const end = (await log.admin.offsets(positionTopic))[0];
      reader.seek(positionTopic, 0, Math.max(end?.start ?? 0, (end?.lastStable ?? 0) - 10));
      while (!signal.aborted) {
        const batches = await reader.poll({ signal });
        const position = batches.flatMap((batch) => batch.records).findLast((record) => record.value !== null);
        const endLsn = position === undefined ? undefined : endLsnOf(position.value!);
        if (endLsn !== undefined) await this.#reach(endLsn);
      }
    } finally {
      await reader.close();
    }
  }

  async #reach(lsn: WalToken): Promise<void> {
    const { log, database, consumer, topics } = this.#options;
    const wanted = new Map<string, number>();
    for (const topic of topics) {
      for (const offset of await log.admin.offsets(topic))
        if (offset.high > offset.start) wanted.set(`${topic}/${offset.partition}`, offset.high);
    }
    for (;;) {
      if (this.#stop.signal.aborted) return;
      const { rows } = await database.query<{ id: string; next: string }>(
        `SELECT topic || '/' || partition AS id, next_offset::text AS next FROM headwater.offsets WHERE consumer = $1`,
        [consumer],
      );
      const applied = new Map(rows.map((row) => [row.id, Number(row.next)]));
      if ([...wanted].every(([id, offset]) => (applied.get(id) ?? 0) >= offset)) break;
      await this.#clock.wait(STEP_MS, this.#stop.signal);
    }
    await database.query(
      `INSERT INTO headwater.frontier AS f (consumer, lsn) VALUES ($1, $2::pg_lsn)
       ON CONFLICT (consumer) DO UPDATE SET lsn = EXCLUDED.lsn WHERE f.lsn < EXCLUDED.lsn`,
      [consumer, lsn],
    );
    this.#lsn = lsn;
    this.#lastError = undefined;
  }
}

/** Waits until `consumer` has applied everything up to the token. Throws PROJECTION_BEHIND after `timeoutMs`; holds no connection meanwhile. */
export async function awaitToken(
  sql: Sql,
  consumer: string,
  token: WalToken,
  timeoutMs = 5_000,
  clock: Clock = systemClock,
): Promise<void> {
  const endsAt = clock.now() + timeoutMs;
  for (;;) {
    const { rows } = await sql.query<{ reached: boolean; lsn: string | null }>(
      `SELECT lsn >= $2::pg_lsn AS reached, lsn::text FROM headwater.frontier WHERE consumer = $1`,
      [consumer, token],
    );
    if (rows[0]?.reached === true) return;
    if (clock.now() >= endsAt) {
      throw new HeadwaterError(
        'PROJECTION_BEHIND',
        `${consumer} has reached ${rows[0]?.lsn ?? 'nothing yet'}, the token asks for ${token}. Ask again, or without the token.`,
        {
          retryable: true,
          facts: { consumer, reached: rows[0]?.lsn ?? null, token },
        },
      );
    }
    await clock.wait(STEP_MS);
  }
}

function endLsnOf(value: Buffer): WalToken | undefined {
  const position = JSON.parse(value.toString('utf8')) as { phase?: string; endLsn?: unknown };
  return typeof position.endLsn === 'string' && position.phase !== 'snapshot' ? position.endLsn : undefined;
}
