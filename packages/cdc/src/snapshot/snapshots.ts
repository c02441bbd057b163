import { randomBytes } from 'node:crypto';
import type { Log } from '@headwater/core';
import type { ResolvedOptions } from '../capture.options.js';
import type { Lsn } from '../lsn.js';
import type { SnapshotWindow } from '../snapshot-window.js';
import type { SourceTables } from '../source-tables.js';
import { Bell } from './bell.js';
import type { SnapshotProgress } from './progress.js';
import type { SnapshotSource } from './snapshot-source.js';
import { SnapshotRecords } from './snapshot-state.js';
import { SnapshotStream } from './snapshot-stream.js';
import { SnapshotWorkers } from './snapshot-workers.js';

/** The snapshots of one life of a connection: what follows its stream, and the sessions that read. */
export class Snapshots {
  private constructor(
    private readonly stream: SnapshotStream,
    private readonly workers: SnapshotWorkers,
  ) {}

  /** Goes on with the unfinished ones that the position names, read after the fence. */
  static async resume(
    options: ResolvedOptions,
    position: { readonly snapshots: readonly string[]; readonly signalKey: string },
    tables: SourceTables,
    open: () => Promise<SnapshotSource>,
  ): Promise<Snapshots> {
    const { name, positionTopic, clock, logger, onError } = options;
    const log: Log = options.log;
    const records = new SnapshotRecords(positionTopic, name);
    const bell = new Bell();
    const stream = new SnapshotStream({
      name,
      life: randomBytes(12).toString('hex'),
      signalKey: position.signalKey,
      records,
      catalog: tables.tables,
      states: await records.read(log, position.snapshots),
      elapsed: () => clock.elapsed(),
      now: () => clock.now(),
      onChange: () => bell.ring(),
      onNotice: (message) => logger.info(`capture ${name}: ${message}`),
    });
    const workers = new SnapshotWorkers(
      {
        name,
        signalKey: position.signalKey,
        log,
        clock,
        logger,
        onError,
        workers: options.snapshotWorkers,
        chunkRows: options.snapshotChunkRows,
        open,
        onInvalid: options.onRefused === 'park' ? 'refuse' : 'throw',
        shapeOf: (table, columns) => tables.shapeWith(table, columns),
      },
      stream,
      bell,
    );
    return new Snapshots(stream, workers);
  }

  get window(): SnapshotWindow {
    return this.stream;
  }

  progress(): readonly SnapshotProgress[] {
    return this.stream.progress();
  }

  /** The log holds the stream up to here. */
  published(endLsn: Lsn): void {
    this.workers.published(endLsn);
  }

  /** Works until the signal aborts. Rejects when a snapshot that capture needs cannot be taken. */
  run(signal: AbortSignal): Promise<void> {
    return this.workers.run(signal);
  }
}
