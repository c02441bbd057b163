import type { Clock, LogWriter } from '@headwater/core';
import type { AckPolicy } from './ack-policy.js';
import type { ResolvedOptions } from './capture.options.js';
import { isFatal, isOfStreaming } from './cdc.errors.js';
import type { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import type { Position } from './position.js';
import { Publisher } from './publish.js';
import type { Published } from './publish.js';
import type { WalStream } from './replication-stream.js';
import { sourceHeaders } from './rows.js';
import { SchemaLog } from './schema-log.js';
import type { ChunkRecord } from './snapshot/chunk.js';
import type { SnapshotWindow } from './snapshot-window.js';
import type { SourceTables } from './source-tables.js';
import type { LearnedLimits } from './parking/learned-limits.js';
import { ParkedOrders } from './parking/parked-orders.js';
import { Parking } from './parking/parking.js';
import { presentRecord } from './parking/present-record.js';
import { spoolPath } from './streamed/spool-path.js';
import { Spools } from './streamed/spools.js';
import { StreamedTransactions } from './streamed/streamed-transactions.js';
import { readTopicLimits } from './topic-limits.js';
import { TransactionAssembler } from './transaction-assembler.js';
import type { WalMessage } from './transaction-assembler.js';
import { TransactionLog } from './transaction-log.js';
import { Truncations } from './truncation.js';
import { WalFrames } from './wal-frames.js';

export interface Pump {
  readonly writer: LogWriter;
  readonly stream: WalStream;
  readonly ack: AckPolicy;
  readonly tables: SourceTables;
  readonly options: ResolvedOptions;
  readonly position: Position;
  readonly window: SnapshotWindow;
  readonly signal: AbortSignal;
  readonly onPublished: (published: Published) => void;
  readonly onIgnored: (error: CaptureError | undefined) => void;
  readonly onWal: (lsn: Lsn) => void;
  readonly learned: LearnedLimits;
  /** How much is parked, at the start and when it may have changed. */
  readonly onParked: (parked: { readonly changes: number; readonly keys: number }) => void;
}

/** How long bytes that are there may be worked on before timers, input and output get their turn. */
const TURN_MS = 10;

/**
 * Moves bytes from one connection into the log until stopped or failed: decode, collect whole transactions, write while the
 * previous write is in flight, acknowledge what is committed (P3).
 */
export async function pump(run: Pump): Promise<void> {
  const { stream, ack, signal } = run;
  const { clock, log } = run.options;
  const limits = async (topics: readonly string[]) =>
    run.learned.apply(await readTopicLimits(log.admin, topics, clock));
  const parking = await Parking.open(run.options);
  const onPublished = (published: Published) => {
    run.onPublished(published);
    ack.published(published.position.endLsn);
    stream.sendStatus();
    if (parking?.entries !== undefined) run.onParked(parking.entries.counts);
  };
  const publisher = new Publisher(run.writer, limits, run.options, run.position, onPublished, parking);
  const orders = parking && parkedOrders(run, parking, publisher);
  const truncations =
    run.options.truncate === 'stop'
      ? undefined
      : new Truncations(run.options.truncate, {
          log,
          settle: () => publisher.drain(),
          committedEnd: (topic, partition) => publisher.committedEnd(topic, partition),
          signal,
          makeRoom: async () => (publisher.isFull ? publisher.makeRoom() : undefined),
          parkedPlaces: ({ topic, table }) => parking?.places(topic, table) ?? [],
        });
  const { schemasTopic, transactionsTopic } = run.options;
  // After the fence: what is recorded is what is committed.
  const schemas = schemasTopic === undefined ? undefined : await SchemaLog.read(log, schemasTopic);
  const assembler = new TransactionAssembler(
    {
      topic: (topic) => publisher.topic(topic),
      add: (record: ChunkRecord) => {
        if (record.refused === undefined) publisher.add(record);
        else parking!.refuse(record, record.refused);
      },
      refuse: (record, error) => parking?.refuse(record, error) ?? false,
      ignored: (error) => run.onIgnored(error),
      complete: (progress) => {
        ack.received(progress.endLsn);
        publisher.complete(progress);
      },
    },
    run.tables,
    run.position.commitLsn,
    truncations?.watching(run.window) ?? run.window,
    run.options.outbox ? run.tables.messages : undefined,
    truncations,
    schemas,
    transactionsTopic === undefined ? undefined : new TransactionLog(transactionsTopic),
  );
  const spools = run.options.streaming === 'off' ? undefined : await Spools.open(spoolPath(run.options, run.position));
  const work = new FrameWork(run, assembler, publisher, orders, spools);
  const over = new AbortController();
  let listening: Promise<void> | undefined;
  const onStop = () => stream.wake();
  signal.addEventListener('abort', onStop);
  try {
    await publisher.open([...new Set(run.tables.tables.map(({ spec }) => spec.topic))]);
    if (transactionsTopic !== undefined) await publisher.open([transactionsTopic]);
    if (schemas !== undefined) await describeNew(run, schemas, publisher);
    if (orders !== undefined) await publisher.open(parking!.topics);
    run.onParked(parking?.entries?.counts ?? { changes: 0, keys: 0 });
    listening = orders?.listen(over.signal);
    let turnEndsAt = clock.elapsed() + TURN_MS;
    while (!signal.aborted) {
      const bytes = stream.shift();
      if (bytes === undefined) {
        if (orders?.due === true && !assembler.inTransaction) await orders.obey();
        publisher.flush();
        if (orders?.due === true && !assembler.inTransaction) continue;
        await idle(stream, publisher, signal, clock);
        turnEndsAt = clock.elapsed() + TURN_MS;
        continue;
      }
      await work.on(bytes);
      if (clock.elapsed() < turnEndsAt) continue;
      await clock.breathe();
      turnEndsAt = clock.elapsed() + TURN_MS;
    }
    await publisher.drain();
  } catch (error) {
    if (isOfStreaming(error)) stream.wholeNext();
    // What came before a refused message is complete and may still be published.
    if (isFatal(error)) await publisher.drain().catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener('abort', onStop);
    over.abort();
    orders?.end();
    await listening;
    await spools?.close();
    await publisher.abandon();
  }
}

/** Absent: nothing is parked. */
function parkedOrders(run: Pump, parking: Parking, publisher: Publisher): ParkedOrders | undefined {
  const { options, tables, learned, stream } = run;
  parking.attach(publisher);
  const { entries } = parking;
  if (entries === undefined) return undefined;
  const { name, log, clock } = options;
  return new ParkedOrders({
    name,
    log,
    parking,
    entries,
    publisher,
    learned,
    reread: (record) => presentRecord(tables, record, parking.partitionsOf(record.topic), clock.now()),
    onDue: () => stream.wake(),
  });
}

/** Tables of which no version is known have one before their first row, also when that comes from a snapshot. */
async function describeNew(run: Pump, schemas: SchemaLog, publisher: Publisher): Promise<void> {
  await publisher.open([schemas.topic]);
  const source = sourceHeaders(formatLsn(run.position.endLsn), '', BigInt(run.options.clock.now()) * 1_000n);
  for (const table of run.tables.tables) {
    if (schemas.knows(table.spec.table)) continue;
    const shape = await run.tables.shapeWith(table, table.columns);
    for (const record of schemas.due(source, shape)) publisher.add(record);
  }
}

/** Works through bytes frame by frame, and waits where it must. */
class FrameWork {
  readonly #frames = new WalFrames();
  readonly #streamed: StreamedTransactions;

  constructor(
    private readonly run: Pump,
    private readonly assembler: TransactionAssembler,
    private readonly publisher: Publisher,
    private readonly orders: ParkedOrders | undefined,
    spools: Spools | undefined,
  ) {
    const put = (message: WalMessage) => this.#put(message);
    const { outbox } = run.options;
    this.#streamed = new StreamedTransactions({ spools, put, outbox, signal: run.signal });
  }

  async on(bytes: Buffer): Promise<void> {
    const { assembler, run, orders } = this;
    const frames = this.#frames;
    frames.feed(bytes);
    for (let kind = frames.next(); kind !== undefined; kind = frames.next()) {
      if (kind === 'message') {
        const asked = this.#streamed.accept(frames);
        if (asked !== undefined) await asked;
        if (orders !== undefined && orders.due && !assembler.inTransaction) await orders.obey();
        // A stop leaves what was not begun to the next start.
        if (run.signal.aborted) return;
      } else if (kind === 'keepalive') this.#keepalive();
      else run.stream.control(frames.bytes.subarray(frames.start, frames.end));
    }
  }

  /** Returns a promise only when it has to ask, or to make room. */
  #put(message: WalMessage): Promise<void> | undefined {
    const asked = this.assembler.accept(message);
    if (asked !== undefined) return asked.then(() => this.#room());
    return this.#room();
  }

  #room(): Promise<void> | undefined {
    return this.publisher.isFull ? this.publisher.makeRoom() : undefined;
  }

  #keepalive(): void {
    const { run, publisher, assembler } = this;
    const { lsn, replyRequested } = this.#frames;
    run.onWal(lsn);
    // P3: while a transaction is open the keepalive's LSN may lie behind rows that are not published.
    if (!assembler.inTransaction && !this.#streamed.inBlock) {
      run.ack.received(lsn);
      publisher.reached(lsn);
    }
    if (replyRequested) run.stream.sendStatus();
  }
}

async function idle(stream: WalStream, publisher: Publisher, signal: AbortSignal, clock: Clock): Promise<void> {
  if (signal.aborted) return;
  const delay = publisher.flushDelayMs;
  const over = new AbortController();
  const timed = delay === undefined || publisher.inFlight !== undefined ? [] : [clock.wait(delay, over.signal)];
  await Promise.race([stream.arrival(), ...timed, ...(publisher.inFlight === undefined ? [] : [publisher.inFlight])]);
  over.abort();
}
