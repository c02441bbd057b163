import type { Clock, Log } from '@headwater/core';
import { backoffMs, errorMessage } from '@headwater/core';
import type { CaptureLogger } from '../capture.options.js';
import type { CatalogTable } from '../catalog.js';
import { isFatal } from '../cdc.errors.js';
import { ZERO_LSN } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import type { TableShape } from '../rows.js';
import { SIGNAL_PREFIX, WATERMARK_PREFIX } from '../snapshot-window.js';
import type { Bell } from './bell.js';
import { Chunk } from './chunk.js';
import type { SourceShape } from './chunk-query.js';
import { Leftovers, passesFor } from './leftovers.js';
import { planTable } from './plan-table.js';
import { signalContent } from './signals.js';
import type { Task } from './snapshot-run.js';
import type { ChunkFacts, SnapshotSource } from './snapshot-source.js';
import type { SnapshotStream } from './snapshot-stream.js';
import type { TableStep } from './table-run.js';

export interface WorkerSetup {
  readonly name: string;
  readonly signalKey: string;
  readonly log: Log;
  readonly clock: Clock;
  readonly logger: CaptureLogger;
  readonly onError: (error: unknown) => void;
  readonly workers: number;
  readonly chunkRows: number;
  readonly open: () => Promise<SnapshotSource>;
  /** Of a row with a value that its type never prints. */
  readonly onInvalid: 'throw' | 'refuse';
  /** How rows with these columns become records. */
  readonly shapeOf: (table: CatalogTable, columns: SourceShape['columns']) => Promise<TableShape>;
}

interface Known {
  readonly source: SourceShape;
  readonly record: TableShape;
  /** Of its topic. */
  readonly partitions: number;
  /** Bytes per row, expected or met. */
  width: number;
}

/** Bytes of one chunk; rows are many or wide. */
const CHUNK_BYTES = 4 * 1024 * 1024;
/** Chunks in memory, per worker. */
const CHUNKS_AHEAD = 2;

/** Reads what snapshots need, in several sessions, and has it published by the stream. */
export class SnapshotWorkers {
  readonly #known = new Map<string, Known>();
  readonly #sources = new Set<SnapshotSource>();
  #published: Lsn = ZERO_LSN;

  constructor(
    private readonly setup: WorkerSetup,
    private readonly stream: SnapshotStream,
    private readonly bell: Bell,
  ) {}

  /** Works until the signal aborts. Rejects when a snapshot that capture needs cannot be taken. */
  async run(signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const end = () => {
      over.abort();
      for (const source of this.#sources) void source.end();
    };
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    try {
      const loops = Array.from({ length: this.setup.workers }, () => this.#work(over.signal).finally(end));
      const ended = await Promise.allSettled(loops);
      for (const loop of ended) if (loop.status === 'rejected') throw loop.reason;
    } finally {
      signal.removeEventListener('abort', end);
    }
  }

  /** The log holds the stream up to here. */
  published(endLsn: Lsn): void {
    this.#published = endLsn;
    this.bell.ring();
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { clock } = this.setup;
    let source: SnapshotSource | undefined;
    for (let failures = 0; !signal.aborted;) {
      const ticket = this.bell.ticket;
      const task = this.stream.waiting < CHUNKS_AHEAD * this.setup.workers ? this.stream.next() : undefined;
      if (task === undefined) {
        if (this.stream.ids.length === 0) source = await this.#close(source);
        await this.bell.since(ticket, clock, this.stream.dueInMs, signal);
        continue;
      }
      const release = hold(task);
      try {
        source ??= await this.#open();
        await this.#perform(task, source, signal);
        failures = 0;
      } catch (error) {
        source = await this.#close(source);
        if (signal.aborted) return;
        release();
        await this.#failed(task, error);
        await clock.wait(backoffMs(++failures), signal);
      } finally {
        release();
        this.bell.ring();
      }
    }
    await this.#close(source);
  }

  async #open(): Promise<SnapshotSource> {
    const source = await this.setup.open();
    this.#sources.add(source);
    return source;
  }

  async #close(source: SnapshotSource | undefined): Promise<undefined> {
    if (source === undefined) return undefined;
    this.#sources.delete(source);
    await source.end();
    return undefined;
  }

  #perform(task: Task, source: SnapshotSource, signal: AbortSignal): Promise<void> {
    switch (task.step.step) {
      case 'prepare':
        return this.#prepare(task, source, signal);
      case 'read':
        return this.#read(task, task.step, source);
      case 'leftovers':
        return this.#leftovers(task, source, signal);
    }
  }

  /** What capture needs halts it; what was asked for ends, and the stream goes on. */
  async #failed({ of, table }: Task, error: unknown): Promise<void> {
    const { logger, name, signalKey } = this.setup;
    this.setup.onError(error);
    logger.warn(`capture ${name}: snapshot "${of.id}" of ${table.run.state.table}: ${errorMessage(error)}`);
    if (!isFatal(error)) return;
    if (of.cause === 'needed') throw error;
    of.fail();
    const source = await this.#open();
    try {
      await source.emit(SIGNAL_PREFIX, signalContent(name, signalKey, { signal: 'stop', id: of.id }));
    } finally {
      await this.#close(source);
    }
  }

  async #prepare({ of, table }: Task, source: SnapshotSource, signal: AbortSignal): Promise<void> {
    const { clock, log, logger, name, workers, chunkRows } = this.setup;
    const { catalog, run } = table;
    const { generation } = run;
    const waits = (pids: string) =>
      logger.info(
        `capture ${name}: snapshot "${of.id}" waits for transactions that wrote to ${run.state.table}: pid ${pids}`,
      );
    // N3: only now, while the stream is told. Whoever wrote before is waited for, whoever writes later is told.
    this.stream.know(await source.writersEnded(catalog, clock, signal, waits));
    const known = await this.#learn(catalog, source);
    let { plan } = run.state;
    if (plan === null) {
      const planned = await planTable(source, log, catalog, known.source, {
        where: of.where,
        workers,
        chunkRows,
        topicEnds: run.state.topicEnds ?? null,
      });
      plan = planned.plan;
      known.width = planned.width;
    }
    if (!signal.aborted && run.generation === generation) this.stream.prepared({ of, table }, plan);
  }

  async #read({ of, table }: Task, step: Extract<TableStep, { step: 'read' }>, source: SnapshotSource): Promise<void> {
    const { catalog, run } = table;
    const known = this.#known.get(catalog.spec.table) ?? (await this.#learn(catalog, source));
    const { upTo } = run.state.plan!.ranges[step.range]!;
    const limit = Math.max(1, Math.min(this.setup.chunkRows, Math.floor(CHUNK_BYTES / Math.max(1, known.width))));
    const chunk = new Chunk(known.record, known.partitions, this.setup.onInvalid);
    const id = this.stream.open(table);
    let facts: ChunkFacts;
    try {
      await source.emit(WATERMARK_PREFIX, this.stream.mark(id, 'low'));
      const stretch = { after: step.after, upTo };
      const onRow = (line: Buffer) => chunk.add(line);
      facts = await source.read({ table: catalog, shape: known.source, where: of.where, stretch, limit, onRow });
    } catch (error) {
      this.stream.close(id);
      // A column that was dropped or renamed since: read again with those that are there.
      if (isFatal(error) && !sameShape(known.source, (await this.#learn(catalog, source)).source)) return;
      throw error;
    }
    if (!sameShape(known.source, facts.shape)) {
      this.stream.close(id);
      await this.#learn(catalog, source);
      return;
    }
    chunk.readMicros = facts.readMicros;
    const full = chunk.keys.length >= limit;
    if (!run.endRead(step.range, step.generation, { last: chunk.last, full })) {
      this.stream.close(id);
      return;
    }
    if (chunk.keys.length > 0) known.width = chunk.bytes / chunk.keys.length;
    this.stream.wait(id, { kind: 'chunk', of, table, range: step.range, chunk, full }, facts.snapshot);
    try {
      await source.emit(WATERMARK_PREFIX, this.stream.mark(id, 'high'));
    } catch (error) {
      this.stream.goBack(table, step.range);
      throw error;
    }
  }

  async #leftovers({ of, table }: Task, source: SnapshotSource, signal: AbortSignal): Promise<void> {
    const { log } = this.setup;
    const { topicEnds } = table.run.state.plan!;
    const { generation } = table.run;
    const { record: shape } = this.#known.get(table.catalog.spec.table) ?? (await this.#learn(table.catalog, source));
    const passes = passesFor(topicEnds);
    for (let pass = 0; pass < passes && table.run.generation === generation && !signal.aborted; pass++) {
      const left = new Leftovers(log, shape, topicEnds, pass, passes);
      await left.readOn(signal);
      const last = pass === passes - 1;
      if (left.places.size === 0 && !last) continue;
      const id = this.stream.open(table);
      let low: Lsn | undefined;
      let ended: boolean | undefined;
      const onLow = (lsn: Lsn) => (low = lsn);
      const onEnd = (published: boolean) => {
        ended = published;
        this.bell.ring();
      };
      this.stream.wait(id, { kind: 'keys', of, table, shape, places: left.places, last, onLow, onEnd });
      try {
        await source.emit(WATERMARK_PREFIX, this.stream.mark(id, 'low'));
        // All that the stream told before is committed and is seen now; what it tells from here on is remembered.
        await this.#until(() => ended !== undefined || (low !== undefined && this.#published >= low), signal);
        await left.readOn(signal);
        if (signal.aborted) return;
        await source.emit(WATERMARK_PREFIX, this.stream.mark(id, 'high'));
        await this.#until(() => ended !== undefined, signal);
      } finally {
        this.stream.close(id);
      }
      // Disturbed: the next worker begins again. Given up: so be it.
      if (ended !== true) return;
    }
  }

  async #until(done: () => boolean, signal: AbortSignal): Promise<void> {
    for (;;) {
      const ticket = this.bell.ticket;
      if (signal.aborted || done()) return;
      await this.bell.since(ticket, this.setup.clock, undefined, signal);
    }
  }

  async #learn(catalog: CatalogTable, source: SnapshotSource): Promise<Known> {
    const shape = await source.shape(catalog);
    const before = this.#known.get(catalog.spec.table);
    const record = await this.setup.shapeOf(catalog, shape.columns);
    const partitions = before?.partitions ?? (await this.#partitionsOf(record));
    const known: Known = { source: shape, record, partitions, width: before?.width ?? 1_000 };
    this.#known.set(catalog.spec.table, known);
    return known;
  }

  async #partitionsOf({ route, topic }: TableShape): Promise<number> {
    if (route === undefined) return 1;
    return (await this.setup.log.admin.partitionCounts([topic])).get(topic) ?? 1;
  }
}

/** Keeps other workers from the same step; returns what lets go of it, once. */
function hold({ table: { run }, step }: Task): () => void {
  if (step.step === 'read') run.beginRead(step.range, step);
  else run.begin();
  let held = true;
  return () => {
    if (!held) return;
    held = false;
    if (step.step === 'read') run.letGo(step.range, step);
    else run.end();
  };
}

function sameShape(a: SourceShape, b: SourceShape): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
