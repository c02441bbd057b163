import type { Log, LogRecord } from '@headwater/core';
import { headerText } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, settledOffsets, testDatabase, uniqueName } from '@headwater/testing';
import { Client } from 'pg';
import { Capture } from './capture.js';
import { CaptureProcess } from './capture-process.testing.js';
import type { ProcessOptions } from './capture-process.testing.js';
import type { CaptureOptions } from './capture.options.js';
import { positionTopicOf } from './own-topics.js';
import { parsePosition, readPosition, readRecords } from './position.js';
import type { Position } from './position.js';
import { parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';

/** A record as a test compares it. */
export interface Seen {
  readonly key: string | undefined;
  readonly value: string | undefined;
  readonly op: string | undefined;
  readonly tx: string | undefined;
  readonly seq: number;
  readonly lsn: string | undefined;
  readonly record: LogRecord;
}

export const brokers = (process.env['KAFKA_BROKERS'] ?? '').split(',');
const databaseUrl = process.env['DATABASE_URL'] ?? '';

/** A database, a log and topics of its own; whatever it starts it stops. */
export class Source {
  readonly name = uniqueName('cap');
  readonly captures: Capture[] = [];
  readonly processes: CaptureProcess[] = [];
  readonly errors: unknown[] = [];
  readonly messages: string[] = [];
  readonly #topics: string[] = [];
  readonly #clients: Client[] = [];

  private constructor(
    readonly url: string,
    /** Replaced where its server was restarted. */
    public sql: Client,
    readonly log: Log,
    readonly brokers: readonly string[],
    private readonly drop: () => Promise<void>,
  ) {}

  /** On the servers of the test run, or on others. */
  static async open(serverUrl = databaseUrl, kafkaBrokers: readonly string[] = brokers): Promise<Source> {
    const database = await testDatabase(serverUrl);
    const sql = new Client({ connectionString: database.url });
    // A server that is restarted ends the session.
    sql.on('error', () => {});
    await sql.connect();
    return new Source(database.url, sql, kafkaLog({ brokers: kafkaBrokers }), kafkaBrokers, () => database.drop());
  }

  client(): Promise<Client> {
    return this.clientOf(this.url);
  }

  async clientOf(connectionString: string): Promise<Client> {
    const client = new Client({ connectionString });
    client.on('error', () => {});
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  topic(table: string): string {
    return `${this.name}.${table}`;
  }

  async topics(names: readonly string[], partitions = 1, config: Readonly<Record<string, string>> = {}): Promise<void> {
    const cleanupPolicy = 'compact' as const;
    const specs = names.map((name) => ({ topic: this.topic(name), partitions, cleanupPolicy, config }));
    this.#topics.push(...specs.map((spec) => spec.topic));
    await this.log.admin.ensureTopics(specs);
  }

  options(tables: readonly string[], more: Partial<CaptureOptions> = {}): CaptureOptions {
    return {
      name: this.name,
      connectionString: this.url,
      log: this.log,
      tables: tables.map((table) => ({ table: `public.${table}`, topic: this.topic(table) })),
      snapshot: 'initial',
      outbox: true,
      onError: (error) => this.errors.push(error),
      logger: { info: (line) => this.messages.push(line), warn: (line) => this.messages.push(line) },
      ...more,
    };
  }

  capture(tables: readonly string[], more: Partial<CaptureOptions> = {}): Capture {
    const capture = new Capture(this.options(tables, more));
    this.captures.push(capture);
    return capture;
  }

  async started(tables: readonly string[], more: Partial<CaptureOptions> = {}): Promise<Capture> {
    const capture = this.capture(tables, more);
    await capture.start();
    return capture;
  }

  /** Resolves when the markers of what is committed have reached these topics. */
  async settled(tables: readonly string[]): Promise<void> {
    for (const table of tables) await settledOffsets(this.log, this.topic(table));
  }

  processOptions(tables: readonly string[], more: Partial<ProcessOptions> = {}): ProcessOptions {
    const { log: _log, logger: _logger, onError: _onError, ...options } = this.options(tables);
    return { ...options, brokers: this.brokers, ...more };
  }

  /** Starts a capture in a process of its own. */
  async process(
    tables: readonly string[],
    more: Partial<ProcessOptions> = {},
    env = process.env,
  ): Promise<CaptureProcess> {
    const started = await CaptureProcess.start(this.processOptions(tables, more), env);
    this.processes.push(started);
    return started;
  }

  /** All committed records of a topic, in order per partition. */
  seen(table: string): Promise<Seen[]> {
    return this.#seenIn(this.topic(table));
  }

  async #seenIn(topic: string): Promise<Seen[]> {
    const all: Seen[] = [];
    await this.#each(topic, (record) => {
      const header = (name: string) => headerText(record.headers, name);
      all.push({
        key: record.key?.toString(),
        value: record.value?.toString(),
        op: header('hw_op'),
        tx: header('hw_tx'),
        seq: Number(header('hw_seq')),
        lsn: header('hw_lsn'),
        record,
      });
    });
    return all;
  }

  async #each(topic: string, handle: (record: LogRecord) => void): Promise<void> {
    for (const { partition, start, lastStable } of await this.log.admin.offsets(topic))
      if (start < lastStable) await readRecords(this.log, topic, partition, start, lastStable, handle);
  }

  /** The records of a topic of one partition, once no transaction is open on it, and how many have another key or place in their transaction than is wanted. */
  async compared(
    table: string,
    wanted: (index: number) => { readonly key: number; readonly seq: number },
  ): Promise<{ readonly records: number; readonly wrong: number }> {
    await this.settled([table]);
    let [records, wrong] = [0, 0];
    await this.#each(this.topic(table), ({ key, headers }) => {
      const { key: wantedKey, seq } = wanted(records);
      if (Number(key) !== wantedKey || Number(headerText(headers, 'hw_seq')) !== seq) wrong += 1;
      records += 1;
    });
    return { records, wrong };
  }

  seenCount(table: string, count: number, timeoutMs = 15_000): Promise<Seen[]> {
    return this.seenIn(this.topic(table), count, timeoutMs);
  }

  /** At least `count` records of a topic, which is deleted at the end. */
  async seenIn(topic: string, count: number, timeoutMs = 15_000): Promise<Seen[]> {
    if (!this.#topics.includes(topic)) this.#topics.push(topic);
    return eventually(
      async () => {
        const all = await this.#seenIn(topic);
        if (all.length < count) throw new Error(`${all.length} of ${count} records; ${this.#told()}`);
        return all;
      },
      { timeoutMs },
    );
  }

  #told(): string {
    return [
      ...this.errors.map(String),
      ...this.processes.flatMap(({ lines, halted }) => [...lines, ...(halted ? [halted.message] : [])]),
    ].join(' | ');
  }

  async fold(table: string): Promise<Map<string, string>> {
    const fold = new Map<string, string>();
    for (const { key, value } of await this.seen(table)) {
      if (value === undefined) fold.delete(key ?? '');
      else fold.set(key ?? '', value);
    }
    return fold;
  }

  async positions(): Promise<Position[]> {
    const found: Position[] = [];
    await this.#each(this.positionTopic, ({ key, value }) => {
      if (key?.toString() === this.name) found.push(parsePosition(value!));
    });
    return found;
  }

  get positionTopic(): string {
    return positionTopicOf(this.name);
  }

  async lastPosition(): Promise<Position> {
    const position = await readPosition(this.log, this.positionTopic, this.name);
    if (position === undefined) throw new Error('no position');
    return position;
  }

  async walLsn(): Promise<Lsn> {
    const { rows } = await this.sql.query<{ lsn: string }>('SELECT pg_current_wal_lsn() AS lsn');
    return parseLsn(rows[0]!.lsn);
  }

  /** The fold of the topic equals the table `a (id int, b text)`. */
  async foldEqualsTable(sql = this.sql): Promise<void> {
    const { rows: found } = await sql.query<{ id: number; b: string }>('SELECT id, b FROM a');
    const table = new Map(found.map((row) => [String(row.id), JSON.stringify(row)]));
    await eventually(async () => {
      const [fold, wanted] = [await this.fold('a'), table].map((rows) =>
        JSON.stringify([...rows].toSorted(([x], [y]) => Number(x) - Number(y))),
      );
      if (fold !== wanted) throw new Error(`fold ${fold}, table ${wanted}`);
    });
  }

  get slot(): string {
    return `headwater_${this.name}`;
  }

  async slotFacts(): Promise<{ confirmed: string; pid: number | null; status: string } | undefined> {
    const { rows } = await this.sql.query<{ confirmed: string; pid: number | null; status: string }>(
      `SELECT confirmed_flush_lsn AS confirmed, active_pid AS pid, wal_status AS status FROM pg_replication_slots WHERE slot_name = $1`,
      [this.slot],
    );
    return rows[0];
  }

  async slotFree(): Promise<void> {
    await eventually(async () => {
      if ((await this.slotFacts())?.pid != null) throw new Error('slot is active');
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.processes.map((started) => started.kill()));
    await Promise.all(this.captures.map((capture) => capture.stop()));
    await this.log.admin.deleteTopics([...this.#topics, this.positionTopic]).catch(() => {});
    await this.log.close();
    await Promise.all([this.sql, ...this.#clients].map((client) => client.end().catch(() => {})));
    await this.drop();
  }
}
