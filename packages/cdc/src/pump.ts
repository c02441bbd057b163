import type { Clock, LogWriter } from '@headwater/core';
import type { AckPolicy } from './ack-policy.js';
import type { ResolvedOptions } from './capture.options.js';
import { isFatal } from './cdc.errors.js';
import type { CaptureError } from './cdc.errors.js';
import type { Lsn } from './lsn.js';
import { decodePgoutput } from './pgoutput.js';
import type { Position } from './position.js';
import { Publisher } from './publish.js';
import type { Published } from './publish.js';
import type { StreamItem, WalStream } from './replication-stream.js';
import type { SnapshotWindow } from './snapshot-window.js';
import type { SourceTables } from './source-tables.js';
import { TransactionAssembler } from './transaction-assembler.js';

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
}

/** How many messages are decoded before timers get their turn. */
const TURN = 1_000;

/**
 * Moves messages from one connection into the log until stopped or failed: decode, collect whole transactions, write while the
 * previous write is in flight, acknowledge what is committed (P3).
 */
export async function pump(run: Pump): Promise<void> {
  const { stream, ack, signal } = run;
  const { clock } = run.options;
  const publisher = new Publisher(run.writer, run.options, run.position, (published) => {
    run.onPublished(published);
    ack.published(published.position.endLsn);
    stream.sendStatus();
  });
  const assembler = new TransactionAssembler(
    {
      add: (record) => publisher.add(record),
      ignored: (error) => run.onIgnored(error),
      complete: (progress) => {
        ack.received(progress.endLsn);
        publisher.complete(progress);
      },
    },
    run.tables,
    run.position.commitLsn,
    run.window,
    run.options.outbox,
    run.tables.messages,
  );
  const onStop = () => stream.wake();
  signal.addEventListener('abort', onStop);
  try {
    for (let count = 1; !signal.aborted; count++) {
      if (count % TURN === 0) await clock.breathe();
      const item = stream.shift();
      if (item === undefined) {
        publisher.flush();
        await idle(stream, publisher, signal, clock);
        continue;
      }
      const asked = accept(run, assembler, publisher, item);
      if (asked !== undefined) await asked;
      if (publisher.isFull) await publisher.makeRoom();
    }
    await publisher.drain();
  } catch (error) {
    // What came before a refused message is complete and may still be published.
    if (isFatal(error)) await publisher.drain().catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener('abort', onStop);
    await publisher.abandon();
  }
}

function accept(
  run: Pump,
  assembler: TransactionAssembler,
  publisher: Publisher,
  item: StreamItem,
): Promise<void> | undefined {
  if ('bytes' in item) return assembler.accept(decodePgoutput(item.bytes, item.lsn), item.lsn);
  run.onWal(item.keepalive);
  // P3: while a transaction is open the keepalive's LSN may lie behind rows that are not published.
  if (assembler.inTransaction) return undefined;
  run.ack.received(item.keepalive);
  publisher.reached(item.keepalive);
  return undefined;
}

async function idle(stream: WalStream, publisher: Publisher, signal: AbortSignal, clock: Clock): Promise<void> {
  if (signal.aborted) return;
  const delay = publisher.idleDelayMs;
  const over = new AbortController();
  const timed = delay === undefined || publisher.inFlight !== undefined ? [] : [clock.wait(delay, over.signal)];
  await Promise.race([stream.arrival(), ...timed, ...(publisher.inFlight === undefined ? [] : [publisher.inFlight])]);
  over.abort();
}
