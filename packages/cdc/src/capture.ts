import type { LogWriter } from '@headwater/core';
import { errorCode, errorMessage } from '@headwater/core';
import type { Client } from 'pg';
import { AckPolicy } from './ack-policy.js';
import { resolveOptions, topicsOf } from './capture.options.js';
import type { CaptureOptions, ResolvedOptions } from './capture.options.js';
import { isFatal } from './cdc.errors.js';
import { formatLsn, parseLsn, ZERO_LSN } from './lsn.js';
import type { Lsn } from './lsn.js';
import { positionRecord, readPosition } from './position.js';
import type { Position } from './position.js';
import { openReplicationSession, openSession, textRows } from './postgres-session.js';
import { notCommitted } from './publish.js';
import { ReplicationStream } from './replication-stream.js';
import { checkServer, createSlot, dropSlotIfExists, ensurePublication, readServer } from './server.js';
import { publishSnapshot } from './snapshot.js';
import { SourceTables } from './source-tables.js';
import { pump } from './pump.js';
import { planResume } from './verify-slot.js';
import type { ResumePlan, ServerFacts } from './verify-slot.js';

export type CaptureState =
  'idle' | 'starting' | 'waiting' | 'snapshot' | 'streaming' | 'reconnecting' | 'stopped' | 'halted';

export interface CaptureStatus {
  readonly state: CaptureState;
  /** End LSN and commit LSN of the last committed position. */
  readonly endLsn: string | undefined;
  readonly commitLsn: string | undefined;
  readonly rows: number;
  readonly transactions: number;
  readonly reconnects: number;
  /** WAL between the last committed position and what the server had written when it was last asked. */
  readonly lagBytes: number | undefined;
  readonly ignoredMessages: number;
  readonly lastError: string | undefined;
}

const MAX_BACKOFF_MS = 5_000;

/**
 * Captures tables and outbox messages of one database into a log, exactly once: what is committed in Postgres is seen once by a
 * committed-only reader, in commit order per key, across crashes of every part. See SPEC.md for the invariants.
 */
export class Capture {
  /** Resolves after `stop()` (or a finished snapshot with `only`); rejects when capture halts for good. */
  readonly finished: Promise<void>;
  readonly #options: ResolvedOptions;
  readonly #stop = new AbortController();
  #state: CaptureState = 'idle';
  #position: Position | undefined;
  #rows = 0;
  #transactions = 0;
  #reconnects = 0;
  #ignored = 0;
  #server: ServerFacts | undefined;
  #walLsn: Lsn | undefined;
  #lastError: string | undefined;
  #settle: { resolve: () => void; reject: (error: unknown) => void } = { resolve: () => {}, reject: () => {} };
  #ready: { resolve: () => void; reject: (error: unknown) => void } = { resolve: () => {}, reject: () => {} };
  #started: Promise<void> | undefined;

  constructor(options: CaptureOptions) {
    this.#options = resolveOptions(options);
    this.finished = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.finished.catch(() => {});
  }

  /** Resolves when capture streams, waits for its slot, or has finished; rejects with the refusal. May be called twice. */
  start(): Promise<void> {
    this.#started ??= new Promise((resolve, reject) => {
      this.#ready = { resolve, reject };
      void this.#run();
    });
    return this.#started;
  }

  /** Publishes and acknowledges what was received in whole transactions, and releases the slot. May be called twice. */
  async stop(): Promise<void> {
    this.#stop.abort();
    if (this.#started === undefined) this.#settle.resolve();
    await this.finished.catch(() => {});
  }

  status(): CaptureStatus {
    const position = this.#position;
    return {
      state: this.#state,
      endLsn: position && formatLsn(position.endLsn),
      commitLsn: position && formatLsn(position.commitLsn),
      rows: this.#rows,
      transactions: this.#transactions,
      reconnects: this.#reconnects,
      lagBytes:
        position && this.#walLsn !== undefined ? Math.max(0, Number(this.#walLsn - position.endLsn)) : undefined,
      ignoredMessages: this.#ignored,
      lastError: this.#lastError,
    };
  }

  async #run(): Promise<void> {
    const { log, transactionalId, transactionTimeoutMs } = this.#options;
    const writer = log.writer({ transactionalId, transactionTimeoutMs });
    try {
      this.#state = 'starting';
      await this.#connectUntilStopped(writer);
      this.#state = 'stopped';
    } catch (error) {
      this.#note(error);
      this.#state = 'halted';
      this.#ready.reject(error);
      this.#settle.reject(error);
    } finally {
      await writer.close().catch(() => {});
      this.#ready.resolve();
      this.#settle.resolve();
    }
  }

  async #connectUntilStopped(writer: LogWriter): Promise<void> {
    let attempt = 0;
    while (!this.#stop.signal.aborted) {
      const before = this.#transactions;
      try {
        const next = await this.#connect(writer);
        if (next === 'finished') return;
        if (next === 'again') continue;
      } catch (error) {
        if (this.#stop.signal.aborted && !isFatal(error)) return;
        if (isFatal(error)) throw error;
        this.#note(error);
        if (this.#state === 'streaming') this.#reconnects += 1;
        this.#state = 'reconnecting';
        this.#options.logger.warn(`capture ${this.#options.name}: ${errorMessage(error)}`);
        if (this.#transactions > before) attempt = 0;
      }
      await this.#backOff(attempt++);
    }
  }

  /** One life of a connection. `again`: a snapshot is done. `waiting`: another connection holds the slot. */
  async #connect(writer: LogWriter): Promise<'finished' | 'again' | 'waiting'> {
    const { connectionString, name, log } = this.#options;
    const sessions: Client[] = [];
    try {
      await log.admin.ensureTopics(topicsOf(this.#options));
      const sql = await openSession(connectionString, name);
      sessions.push(sql);
      const replication = await openReplicationSession(connectionString, name);
      sessions.push(replication);
      await checkServer(sql);
      const tables = await SourceTables.read(sql, this.#options.tables);
      const plan = await this.#plan(sql, replication, tables, false);
      if (plan.kind === 'finished') return 'finished';
      if (plan.kind === 'busy') return this.#wait(plan.pid);
      if (plan.kind === 'resume') return await this.#stream(writer, sql, replication, tables);
      return await this.#prepare(writer, sql, replication, tables);
    } catch (error) {
      // Lost the race for the slot: Postgres names the holder in its message.
      if (errorCode(error) === '55006') return this.#wait(errorMessage(error));
      throw error;
    } finally {
      await Promise.all(sessions.map((session) => session.end().catch(() => {})));
    }
  }

  async #plan(sql: Client, replication: Client, tables: SourceTables, holdsSlot: boolean): Promise<ResumePlan> {
    const { log, positionTopic, name } = this.#options;
    const position = await readPosition(log, positionTopic, name);
    const server = await readServer(sql, replication, this.#options, position?.timeline);
    this.#server = server;
    if (position?.phase === 'streaming') this.#position = position;
    return planResume({ ...this.#options, keys: tables.keys }, server, position, holdsSlot);
  }

  #wait(holder: number | string): 'waiting' {
    const { logger, slot, name } = this.#options;
    if (this.#state !== 'waiting')
      logger.info(
        `capture ${name}: slot "${slot}" is held by ${typeof holder === 'number' ? `pid ${holder}` : holder}, waiting`,
      );
    this.#state = 'waiting';
    this.#ready.resolve();
    return 'waiting';
  }

  /** Streams until stopped or lost. The slot is the lock: the log is fenced only after the slot is ours. */
  async #stream(writer: LogWriter, sql: Client, replication: Client, tables: SourceTables): Promise<'finished'> {
    const options = this.#options;
    const ack = new AckPolicy(this.#server?.slot?.confirmedFlushLsn ?? ZERO_LSN);
    const stream = new ReplicationStream({ ...options, messages: options.outbox }, ack);
    await stream.start();
    try {
      await writer.fence();
      // Only after the fence nobody else can move the position any more.
      const plan = await this.#plan(sql, replication, tables, true);
      if (plan.kind !== 'resume') throw new Error(`the position changed while the slot was taken (${plan.kind})`);
      await ensurePublication(sql, options.publication, tables.tables);
      ack.resume(plan.position.endLsn);
      this.#state = 'streaming';
      this.#ready.resolve();
      options.logger.info(`capture ${options.name}: streaming from ${formatLsn(plan.position.endLsn)}`);
      await pump({
        writer,
        stream,
        ack,
        tables,
        options,
        position: { ...plan.position, timeline: this.#server!.timeline, keys: tables.keys },
        signal: this.#stop.signal,
        onPublished: ({ position, rows, transactions }) => {
          this.#position = position;
          this.#rows += rows;
          this.#transactions += transactions;
        },
        onIgnored: (error) => {
          this.#ignored += 1;
          if (error !== undefined) options.logger.warn(`capture ${options.name}: ignored: ${error.message}`);
        },
        onWal: (lsn) => (this.#walLsn = lsn),
      });
      return 'finished';
    } finally {
      await stream.close();
    }
  }

  /** Makes slot, publication and position as the plan, read again after the fence, asks. */
  async #prepare(
    writer: LogWriter,
    sql: Client,
    replication: Client,
    tables: SourceTables,
  ): Promise<'again' | 'waiting'> {
    const options = this.#options;
    const [lock] = await textRows(sql, `SELECT pg_try_advisory_lock(hashtextextended($1, 0))`, [
      options.transactionalId,
    ]);
    if (lock?.[0] !== 't') return this.#wait('a snapshot in another process');
    await writer.fence();
    const plan = await this.#plan(sql, replication, tables, false);
    const server = this.#server!;
    const publication =
      options.snapshot === 'only' ? 0 : await ensurePublication(sql, options.publication, tables.tables);
    const position = (phase: Position['phase'], endLsn: Lsn): Position => ({
      phase,
      systemId: server.systemId,
      timeline: server.timeline,
      slot: options.slot,
      publication,
      // Not endLsn: the next commit record may begin exactly there.
      commitLsn: ZERO_LSN,
      endLsn,
      xid: 0,
      keys: tables.keys,
    });
    const write = async (next: Position) => {
      const outcome = await writer.transact([positionRecord(options.positionTopic, options.name, next)]);
      if (outcome.outcome !== 'committed') throw notCommitted(outcome, writer.transactionalId);
    };
    if (plan.kind === 'adopt') await write(position('streaming', server.slot!.confirmedFlushLsn));
    if (plan.kind === 'create')
      await write(position('streaming', (await createSlot(replication, options.slot)).consistentPoint));
    if (plan.kind !== 'snapshot') return 'again';
    this.#state = 'snapshot';
    if (plan.because !== undefined)
      options.logger.warn(`capture ${options.name}: new snapshot because of ${plan.because.message}`);
    await write(position('snapshot', ZERO_LSN));
    const slot = options.snapshot === 'only' ? undefined : await this.#newSlot(sql, replication);
    const lsn = slot?.consistentPoint ?? (await walLsn(sql));
    await publishSnapshot({
      options,
      log: options.log,
      writer,
      sql,
      tables: tables.tables.map((table) => ({ table, shape: tables.shapeOf(table) })),
      exported: slot?.snapshot,
      lsn,
      finished: position(slot === undefined ? 'done' : 'streaming', lsn),
      signal: this.#stop.signal,
      onRows: (count) => (this.#rows += count),
    });
    return 'again';
  }

  async #newSlot(sql: Client, replication: Client): Promise<{ consistentPoint: Lsn; snapshot: string }> {
    await dropSlotIfExists(sql, this.#options.slot);
    return createSlot(replication, this.#options.slot);
  }

  #note(error: unknown): void {
    this.#lastError = errorMessage(error);
    this.#options.onError(error);
  }

  async #backOff(attempt: number): Promise<void> {
    const ms = Math.min(MAX_BACKOFF_MS, 100 * 2 ** Math.min(attempt, 8)) * (0.75 + Math.random() / 2);
    const { signal } = this.#stop;
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms);
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      }
      signal.addEventListener('abort', done);
    });
  }
}

async function walLsn(sql: Client): Promise<Lsn> {
  return parseLsn((await textRows(sql, 'SELECT pg_current_wal_lsn()'))[0]![0]!);
}
