import type { Client } from 'pg';
import type { AckPolicy } from './ack-policy.js';
import type { ResolvedOptions } from './capture.options.js';
import { checkSetup, refusedSession } from './doctor/check-setup.js';
import type { Lsn } from './lsn.js';
import type { MadeSlot } from './machine-states.js';
import { openReplicationSession, openSession, textRows } from './postgres-session.js';
import { ensurePublication, seePublication, unpublishedTables } from './publication.js';
import { ReplicationStream } from './replication-stream.js';
import { createSlot, dropPublicationIfExists, dropSlotIfExists, readServer, readTimelineSwitch } from './server.js';
import type { SnapshotSource } from './snapshot/snapshot-source.js';
import { SourceSession } from './snapshot/source-session.js';
import type { PublicationSeen, Source, SourceConnection, SourceStream } from './source.js';
import type { SourceTables } from './source-tables.js';
import type { ServerFacts } from './verify-slot.js';

/** The source as it is: one ordinary session, one for replication commands, and one that streams. */
export function postgresSource(options: ResolvedOptions): Source {
  const { connectionString, name } = options;
  let served = false;
  const mode: StreamingMode = { wholeNext: false };
  return {
    async connect() {
      const opening = [openSession(connectionString, name), openReplicationSession(connectionString, name)] as const;
      try {
        const [session, replication] = await Promise.allSettled(opening);
        if (session.status === 'rejected') throw refusedSession(session.reason, connectionString);
        const tables = await checkSetup(session.value, options, replication, served);
        served = true;
        return new PostgresConnection(options, session.value, await opening[1], tables, mode);
      } catch (error) {
        await Promise.all(opening.map((session) => session.then(end, () => {})));
        throw error;
      }
    },
  };
}

/** Of all connections of one capture. */
interface StreamingMode {
  /** The next stream brings every transaction whole, at its commit. */
  wholeNext: boolean;
}

class PostgresConnection implements SourceConnection {
  #lookout: Promise<Client> | undefined;

  constructor(
    private readonly options: ResolvedOptions,
    private readonly sql: Client,
    private readonly replication: Client,
    readonly tables: SourceTables,
    private readonly mode: StreamingMode,
  ) {}

  async facts(): Promise<ServerFacts> {
    const { sql, replication, options, tables } = this;
    const [server, unpublished] = await Promise.all([
      readServer(sql, replication, options),
      unpublishedTables(sql, options.publication, tables.tables),
    ]);
    return { ...server, unpublished };
  }

  timelineSwitch(timeline: number, from: number): Promise<Lsn> {
    return readTimelineSwitch(this.replication, timeline, from);
  }

  async lock(): Promise<boolean> {
    const query = 'SELECT pg_try_advisory_lock(hashtextextended($1, 0))';
    const [row] = await textRows(this.sql, query, [this.options.transactionalId]);
    return row?.[0] === 't';
  }

  ensurePublication(): Promise<number> {
    const { publication, generatedColumns } = this.options;
    return ensurePublication(this.sql, publication, this.tables.tables, generatedColumns);
  }

  async publication(oid: number): Promise<PublicationSeen> {
    const { connectionString, name, publication } = this.options;
    this.#lookout ??= openSession(connectionString, name);
    return seePublication(await this.#lookout, publication, oid);
  }

  dropSlot(): Promise<void> {
    return dropSlotIfExists(this.sql, this.options.slot);
  }

  dropPublication(): Promise<void> {
    return dropPublicationIfExists(this.sql, this.options.publication);
  }

  createSlot(): Promise<MadeSlot> {
    const { slot, failoverSlot } = this.options;
    return createSlot(this.replication, this.sql, slot, failoverSlot);
  }

  async snapshotSource(): Promise<SnapshotSource> {
    const { connectionString, name, publication } = this.options;
    const session = await openSession(connectionString, name);
    try {
      return await SourceSession.on(session, publication);
    } catch (error) {
      await end(session);
      throw error;
    }
  }

  async stream(ack: AckPolicy): Promise<SourceStream> {
    const { mode, options } = this;
    const streaming = mode.wholeNext ? 'off' : options.streaming;
    const stream = new ReplicationStream({ ...options, streaming }, ack, () => (mode.wholeNext = true));
    await stream.start();
    mode.wholeNext = false;
    return stream;
  }

  async close(): Promise<void> {
    // Not awaited: to a silent server it may still be on its way.
    void this.#lookout?.then(end, () => {});
    await Promise.all([this.sql, this.replication].map(end));
  }
}

async function end(session: Client): Promise<void> {
  // What it is asked just now fails by this, and tells why there.
  await session.end().catch(() => {});
}
