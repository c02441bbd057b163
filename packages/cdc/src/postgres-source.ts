import type { Client } from 'pg';
import type { AckPolicy } from './ack-policy.js';
import type { ResolvedOptions } from './capture.options.js';
import type { CatalogTable } from './catalog.js';
import { parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import type { MadeSlot } from './machine-states.js';
import type { Tuple } from './pgoutput.js';
import { openReplicationSession, openSession, quoteName, quoteText, textRows } from './postgres-session.js';
import { ReplicationStream } from './replication-stream.js';
import {
  checkServer,
  createSlot,
  dropSlotIfExists,
  ensurePublication,
  readServer,
  readTimelineSwitch,
} from './server.js';
import type { SnapshotReader } from './snapshot.js';
import type { Source, SourceConnection, SourceStream } from './source.js';
import { SourceTables } from './source-tables.js';
import type { ServerFacts } from './verify-slot.js';

/** The source as it is: one ordinary session, one for replication commands, and one that streams. */
export function postgresSource(options: ResolvedOptions): Source {
  const { connectionString, name } = options;
  return {
    async connect() {
      const opening = [openSession(connectionString, name), openReplicationSession(connectionString, name)] as const;
      try {
        const [sql, replication] = await Promise.all(opening);
        await checkServer(sql);
        return new PostgresConnection(options, sql, replication, await SourceTables.read(sql, options.tables));
      } catch (error) {
        await Promise.all(opening.map((session) => session.then(end, () => {})));
        throw error;
      }
    },
  };
}

class PostgresConnection implements SourceConnection {
  constructor(
    private readonly options: ResolvedOptions,
    private readonly sql: Client,
    private readonly replication: Client,
    readonly tables: SourceTables,
  ) {}

  facts(): Promise<ServerFacts> {
    return readServer(this.sql, this.replication, this.options);
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
    return ensurePublication(this.sql, this.options.publication, this.tables.tables);
  }

  dropSlot(): Promise<void> {
    return dropSlotIfExists(this.sql, this.options.slot);
  }

  createSlot(): Promise<MadeSlot> {
    return createSlot(this.replication, this.options.slot);
  }

  async place(): Promise<MadeSlot> {
    const [row] = await textRows(this.sql, 'SELECT pg_current_wal_lsn()');
    return { lsn: parseLsn(row![0]!), exported: undefined };
  }

  async snapshot({ exported }: MadeSlot): Promise<SnapshotReader> {
    const { sql } = this;
    await sql.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    if (exported !== undefined) await sql.query(`SET TRANSACTION SNAPSHOT ${quoteText(exported)}`);
    return {
      chunks: (table, rows) => chunks(sql, table, rows),
      end: async () => void (await sql.query('ROLLBACK')),
    };
  }

  async stream(ack: AckPolicy): Promise<SourceStream> {
    const stream = new ReplicationStream({ ...this.options, messages: this.options.outbox }, ack);
    await stream.start();
    return stream;
  }

  async close(): Promise<void> {
    await Promise.all([this.sql, this.replication].map(end));
  }
}

async function* chunks(sql: Client, table: CatalogTable, rows: number): AsyncIterable<readonly Tuple[]> {
  const columns = table.columns.map((column) => quoteName(column.name)).join(', ');
  const from = `${table.partitioned ? '' : 'ONLY '}${table.sqlName}`;
  await sql.query(`DECLARE headwater_snapshot NO SCROLL CURSOR FOR SELECT ${columns} FROM ${from}`);
  for (;;) {
    const chunk = await textRows(sql, `FETCH ${rows} FROM headwater_snapshot`);
    if (chunk.length === 0) break;
    yield chunk;
  }
  await sql.query('CLOSE headwater_snapshot');
}

async function end(session: Client): Promise<void> {
  // What it is asked just now fails by this, and tells why there.
  await session.end().catch(() => {});
}
