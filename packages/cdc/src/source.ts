import type { AckPolicy } from './ack-policy.js';
import type { Lsn } from './lsn.js';
import type { MadeSlot } from './machine-states.js';
import type { WalStream } from './replication-stream.js';
import type { SnapshotSource } from './snapshot/snapshot-source.js';
import type { SourceTables } from './source-tables.js';
import type { ServerFacts } from './verify-slot.js';

/** The database edge of capture. Nothing here decides: the machine does. */
export interface Source {
  /** Opens the sessions and reads the tables. Rejects with CDC_SERVER_NOT_READY or CDC_TABLES_INVALID, or with the server's error. */
  connect(): Promise<SourceConnection>;
}

/** What is visible of a publication. */
export interface PublicationSeen {
  /** Of the one that has the name; undefined: none has. */
  readonly oid: number | undefined;
  /** A transaction that drops, renames or alters it is under way, or ended and not visible yet: nothing can be said. */
  readonly changing: boolean;
}

/** One connection to the database; never used again after an error. */
export interface SourceConnection {
  readonly tables: SourceTables;
  /** What the server says now about itself, the slot and the publication. Changes nothing. */
  facts(): Promise<ServerFacts>;
  /** Where the history of `timeline` left `from`. */
  timelineSwitch(timeline: number, from: number): Promise<Lsn>;
  /** Takes the lock under which slot and publication are made; false: another session has it. Released with the connection. */
  lock(): Promise<boolean>;
  /** Makes the publication publish exactly the tables; resolves with its OID. */
  ensurePublication(): Promise<number>;
  /** Looks for the publication that had this OID, on a session of its own: whatever this connection is asked meanwhile holds it not up. */
  publication(oid: number): Promise<PublicationSeen>;
  dropSlot(): Promise<void>;
  dropPublication(): Promise<void>;
  createSlot(): Promise<MadeSlot>;
  /** A session of its own for one reader of snapshots; whoever opens it ends it. */
  snapshotSource(): Promise<SnapshotSource>;
  /** Streams from the slot: who streams has it. Rejects with SQLSTATE 55006 when another connection has it. */
  stream(ack: AckPolicy): Promise<SourceStream>;
  /** Ends the sessions, and what they are asked just now. Never rejects. */
  close(): Promise<void>;
}

export interface SourceStream extends WalStream {
  /** Rejects with the reason when the connection is lost, also while nobody reads the stream. Never settles otherwise. */
  readonly lost: Promise<never>;
  /** Sends a last status and closes; afterwards the server has released the slot, or the socket is destroyed. Never rejects. */
  close(): Promise<void>;
}
