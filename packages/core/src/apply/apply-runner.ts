import { ContractError, HeadwaterError, errorMessage } from '../errors/headwater.error.js';
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
    this.#run = this.#group.run(
      (assignment) => this.#work(assignment),
      (error) => this.#failed(error),
    );
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
        const batches = await reader.poll({ signal: assignment.signal });
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

  async #apply(batches: readonly FetchedBatch[], parked: Set<string>): Promise<void> {
    const moved = new Map<string, Claim>();
    const newlyParked = new Set<string>();
    await this.#options.database.transaction(async (sql) => {
      moved.clear();
      newlyParked.clear();
      // The offset rows first, always in one order: two claimants meet here, before any user row is locked.
      for (const batch of [...batches].sort(byPartition)) {
        const id = `${batch.topic}/${batch.partition}`;
        moved.set(id, await move(sql, this.#definition.consumer, this.#claims.get(id)!, batch.nextOffset));
      }
      const prepared: Prepared[] = [];
      for (const batch of batches) {
        for (const record of batch.records) {
          const one = await this.#prepare(record, sql, parked, newlyParked);
          if (one !== undefined) prepared.push(one);
        }
      }
      if (prepared.length > 0) await this.#definition.write(prepared, sql);
    });
    for (const [id, held] of moved) this.#claims.set(id, held);
    for (const key of newlyParked) parked.add(key);
    this.#options.onApplied?.();
  }

  /** A3: a record that cannot be prepared parks its key; the rest flows on. */
  async #prepare(
    record: LogRecord,
    sql: Sql,
    parked: Set<string>,
    newlyParked: Set<string>,
  ): Promise<Prepared | undefined> {
    const key = parkedKey(record);
    if (record.key !== null && (parked.has(key) || newlyParked.has(key))) {
      await park(
        sql,
        this.#definition.consumer,
        record,
        new HeadwaterError('KEY_PARKED', 'an earlier record of this key is parked'),
      );
      return undefined;
    }
    try {
      if (record.key === null)
        throw new ContractError(`record ${record.topic}/${record.partition}@${record.offset}`, [
          'the record has no key',
        ]);
      return this.#definition.prepare(record);
    } catch (error) {
      if (record.key !== null) newlyParked.add(key);
      await park(sql, this.#definition.consumer, record, error);
      return undefined;
    }
  }
}

function byPartition(a: FetchedBatch, b: FetchedBatch): number {
  return a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : a.partition - b.partition;
}
