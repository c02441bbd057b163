import { ContractError, HeadwaterError, errorCode, errorMessage } from '../errors/headwater.error.js';
import type { Assignment, FetchedBatch, Log, LogGroup, LogRecord } from '../log/log.js';
import type { Health, Logger, Running } from '../lifecycle/running.js';
import type { Database, Sql } from '../postgres/database.js';
import type { ApplyDefinition } from './apply-definition.js';
import { claim, move, type Claim } from './offset-rows.js';
import { park, parkedKey, parkedKeys } from './parked-rows.js';

export interface ApplyOptions {
  readonly log: Log;
  readonly database: Database;
  readonly logger: Logger;
  /** Called after each committed batch, with what is applied now. */
  readonly onApplied?: () => void;
}

/**
 * Runs an apply definition as one member of its group: exactly once, from topics to Postgres.
 *
 * Rows and offset rows move in one SQL transaction (A1). Whatever goes wrong, a lost reply to COMMIT included, ends the work on this
 * assignment; it starts anew from the offset rows, which tell the truth (A2). Offsets committed to the log's group are not used.
 */
export class ApplyRunner<Prepared = unknown> implements Running {
  readonly #definition: ApplyDefinition<Prepared>;
  readonly #options: ApplyOptions;
  readonly #group: LogGroup;
  readonly #run: Promise<void>;
  #status: Health['status'] = 'starting';
  #lastError: string | undefined;
  #claims = new Map<string, Claim>();

  constructor(definition: ApplyDefinition<Prepared>, options: ApplyOptions) {
    this.#definition = definition;
    this.#options = options;
    this.#group = options.log.group({ groupId: `headwater.${definition.consumer}`, topics: definition.topics });
    this.#run = this.#group
      .run(
        (assignment) => this.#work(assignment),
        (error) => this.#failed(error),
      )
      .catch((error: unknown) => this.#ended(error));
  }

  health(): Health {
    const partitions = [...this.#claims.values()].map((held) => ({
      topic: held.topic,
      partition: held.partition,
      next: held.next,
    }));
    return {
      name: `apply ${this.#definition.consumer}`,
      status: this.#status,
      facts: { partitions, lastError: this.#lastError },
    };
  }

  async stop(): Promise<void> {
    await this.#group.stop();
    await this.#run;
    this.#status = 'down';
  }

  /** The group refuses us for good: the topics, the rights or the cluster are not as declared. The process goes on, its health tells. */
  #ended(error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#status = 'down';
    this.#options.logger.error(`${this.#definition.consumer} has stopped: ${this.#lastError}`);
  }

  #failed(error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#status = 'starting';
    this.#options.logger.warn(`${this.#definition.consumer} starts again from its offset rows: ${this.#lastError}`);
  }

  async #work(assignment: Assignment): Promise<void> {
    const { database, log } = this.#options;
    this.#claims = await this.#claimAll(assignment);
    const parked = await parkedKeys(database, this.#definition.consumer, assignment.partitions);
    const reader = log.reader();
    try {
      for (const held of this.#claims.values()) reader.seek(held.topic, held.partition, held.next);
      this.#status = 'up';
      while (!assignment.signal.aborted) {
        // As much as there is goes into one transaction.
        const batches = await reader.poll({ signal: assignment.signal, maxBytes: Infinity });
        if (batches.length > 0 && !assignment.signal.aborted) await this.#apply(batches, parked);
      }
    } finally {
      await reader.close();
    }
  }

  async #claimAll(assignment: Assignment): Promise<Map<string, Claim>> {
    const { database, log } = this.#options;
    const starts = new Map<string, number>();
    for (const topic of this.#definition.topics) {
      for (const offset of await log.admin.offsets(topic)) starts.set(`${topic}/${offset.partition}`, offset.start);
    }
    const claims = new Map<string, Claim>();
    for (const partition of assignment.partitions) {
      const id = `${partition.topic}/${partition.partition}`;
      claims.set(id, await claim(database, this.#definition.consumer, partition, starts.get(id) ?? 0));
    }
    return claims;
  }

  /** Writes a round whole; when its data is refused by Postgres, once more record by record, so that only what is refused is parked. */
  async #apply(batches: readonly FetchedBatch[], parked: Set<string>): Promise<void> {
    const records = batches.flatMap((batch) => batch.records);
    try {
      await this.#transact(batches, parked, async (sql, parking) => {
        const prepared: Prepared[] = [];
        for (const record of records) {
          const value = await this.#prepare(record, parking);
          if (value !== undefined) prepared.push(value);
        }
        if (prepared.length > 0) await this.#definition.write(prepared, sql);
      });
    } catch (error) {
      if (!isRefusedData(error)) throw error;
      await this.#transact(batches, parked, async (sql, parking) => {
        for (const record of records) await this.#applyOne(record, sql, parking);
      });
    }
    this.#options.onApplied?.();
  }

  /** A1: the offset rows and whatever `work` writes, in one transaction. */
  async #transact(
    batches: readonly FetchedBatch[],
    parked: Set<string>,
    work: (sql: Sql, parking: Parking) => Promise<void>,
  ): Promise<void> {
    const moved = new Map<string, Claim>();
    const newlyParked = new Set<string>();
    await this.#options.database.transaction(async (sql) => {
      // The offset rows first, always in one order: two claimants meet here, before any user row is locked.
      for (const batch of [...batches].sort(byPartition)) {
        const id = `${batch.topic}/${batch.partition}`;
        moved.set(id, await move(sql, this.#definition.consumer, this.#claims.get(id)!, batch.nextOffset));
      }
      await work(sql, {
        isParked: (record) =>
          record.key !== null && (parked.has(parkedKey(record)) || newlyParked.has(parkedKey(record))),
        park: async (record, error) => {
          if (record.key !== null) newlyParked.add(parkedKey(record));
          await park(sql, this.#definition.consumer, record, error);
          await this.#definition.onParked?.(record, error, sql);
        },
      });
    });
    for (const [id, held] of moved) this.#claims.set(id, held);
    for (const key of newlyParked) parked.add(key);
  }

  async #applyOne(record: LogRecord, sql: Sql, parking: Parking): Promise<void> {
    const value = await this.#prepare(record, parking);
    if (value === undefined) return;
    await sql.query('SAVEPOINT record');
    try {
      await this.#definition.write([value], sql);
      await sql.query('RELEASE SAVEPOINT record');
    } catch (error) {
      if (!isRefusedData(error)) throw error;
      await sql.query('ROLLBACK TO SAVEPOINT record');
      await parking.park(record, error);
    }
  }

  /** A3: a record that cannot be prepared parks its key; the rest flows on. */
  async #prepare(record: LogRecord, parking: Parking): Promise<Prepared | undefined> {
    if (parking.isParked(record)) {
      await parking.park(record, new HeadwaterError('KEY_PARKED', 'an earlier record of this key is parked'));
      return undefined;
    }
    try {
      if (record.key === null) {
        throw new ContractError(`record ${record.topic}/${record.partition}@${record.offset}`, [
          'the record has no key',
        ]);
      }
      return this.#definition.prepare(record);
    } catch (error) {
      await parking.park(record, error);
      return undefined;
    }
  }
}

/** The parked keys as one transaction sees them. */
interface Parking {
  isParked(record: LogRecord): boolean;
  park(record: LogRecord, error: unknown): Promise<void>;
}

/** A data exception (22), a violated constraint (23) or a limit passed (54): the same record will be refused again. */
function isRefusedData(error: unknown): boolean {
  return /^(22|23|54)...$/.test(errorCode(error) ?? '');
}

function byPartition(a: FetchedBatch, b: FetchedBatch): number {
  return a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : a.partition - b.partition;
}
