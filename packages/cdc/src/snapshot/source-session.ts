import { Query } from 'pg';
import type { Client } from 'pg';
import type { Clock } from '@headwater/core';
import type { CatalogTable } from '../catalog.js';
import { parseLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import { quoteName, quoteText, textRows } from '../postgres-session.js';
import type { TextRow } from '../postgres-session.js';
import { boundariesSelect, chunkSelect } from './chunk-query.js';
import type { SourceShape } from './chunk-query.js';
import type { ChunkFacts, ChunkRead, SnapshotSource } from './snapshot-source.js';
import { parseTxSnapshot } from './tx-snapshot.js';
import type { TxSnapshot } from './tx-snapshot.js';

/** Rows sampled for a boundary between two stretches. */
const SAMPLE_PER_PART = 1_000;
const WRITER_POLL_MS = [1, 5, 20, 50, 100, 250];

/** Snapshots as Postgres serves them, over a session of its own. */
export class SourceSession implements SnapshotSource {
  private constructor(
    private readonly sql: Client,
    private readonly publication: string,
    private readonly flushes: boolean,
  ) {}

  static async on(sql: Client, publication: string): Promise<SourceSession> {
    // A mark must reach the walsender whatever the database waits for elsewhere.
    await sql.query('SET synchronous_commit = local');
    const [version] = await textRows(sql, `SELECT current_setting('server_version_num')`);
    return new SourceSession(sql, publication, Number(version![0]) >= 170_000);
  }

  async end(): Promise<void> {
    // What it is asked just now fails by this, and tells why there.
    await this.sql.end().catch(() => {});
  }

  async emit(prefix: string, content: string): Promise<Lsn> {
    const message = `false, ${quoteText(prefix)}, ${quoteText(content)}`;
    const [row] = await textRows(
      this.sql,
      this.flushes
        ? `SELECT pg_logical_emit_message(${message}, true)`
        : `SELECT pg_logical_emit_message(${message}), pg_current_xact_id()`,
    );
    return parseLsn(row![0]!);
  }

  async shape(table: CatalogTable): Promise<SourceShape> {
    const [row] = await textRows(this.sql, `SELECT ${shapeOf(table, this.publication)}`);
    return parseShape(table, row![0]!);
  }

  async read({ table, shape, where, stretch, limit, onRow }: ChunkRead): Promise<ChunkFacts> {
    const select = chunkSelect({ shape, key: table.keyColumns, where, stretch, limit });
    const text = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
      LOCK TABLE ${fromOf(table)} IN ACCESS SHARE MODE;
      SELECT pg_current_snapshot()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::int8::text, ${shapeOf(table, this.publication)};
      COPY (${select}) TO STDOUT;
      COMMIT`;
    try {
      const [row] = await copyOut(this.sql, text, onRow);
      const [snapshot, micros, found] = row!;
      return {
        snapshot: parseTxSnapshot(snapshot!),
        readMicros: BigInt(micros!),
        shape: parseShape(table, found!),
      };
    } catch (error) {
      await this.sql.query('ROLLBACK').catch(() => {});
      throw error;
    }
  }

  async expect(table: CatalogTable, where: string | null): Promise<{ readonly rows: number; readonly width: number }> {
    const condition = where === null ? '' : ` WHERE (\n${where}\n)`;
    const [plan] = await textRows(this.sql, `EXPLAIN (FORMAT JSON) SELECT * FROM ${fromOf(table)}${condition}`);
    const [{ Plan }] = JSON.parse(plan![0]!) as [{ Plan: { 'Plan Rows': number; 'Plan Width': number } }];
    const [size] = await textRows(
      this.sql,
      `SELECT sum(pg_table_size(relid))::text, (SELECT greatest(sum(reltuples), 1)::text FROM pg_class c WHERE c.oid IN (SELECT relid FROM ${relations(table)})) FROM ${relations(table)}`,
    );
    const stored = Number(size![0]) / Number(size![1]);
    const width = Number(size![1]) > 1 ? Math.max(Plan['Plan Width'], stored) : Plan['Plan Width'];
    return { rows: Plan['Plan Rows'], width };
  }

  async boundaries(
    table: CatalogTable,
    shape: SourceShape,
    rows: number,
    parts: number,
  ): Promise<readonly (readonly string[])[]> {
    const percent = Math.min(100, Math.max(0.01, (100 * SAMPLE_PER_PART * parts) / Math.max(1, rows)));
    const cuts = await textRows(this.sql, boundariesSelect(shape, table.keyColumns, parts, percent));
    return cuts.map((row) => row.map((value) => value!));
  }

  async hasNullKey(table: CatalogTable, shape: SourceShape): Promise<boolean> {
    const nulls = table.keyColumns.map((column) => `${quoteName(column)} IS NULL`).join(' OR ');
    const filter = shape.filter === null ? '' : `(${shape.filter}) AND `;
    const rows = await textRows(this.sql, `SELECT 1 FROM ${shape.from} WHERE ${filter}(${nulls}) LIMIT 1`);
    return rows.length > 0;
  }

  async writersEnded(
    table: CatalogTable,
    clock: Clock,
    signal: AbortSignal,
    onWait: (pids: string) => void,
  ): Promise<TxSnapshot> {
    const holders = `SELECT DISTINCT virtualtransaction, pid FROM pg_locks
      WHERE locktype = 'relation' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND relation IN (SELECT relid FROM ${relations(table)})
        AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`;
    let waiting = await textRows(this.sql, holders);
    for (let poll = 0; waiting.length > 0 && !signal.aborted; poll++) {
      if (poll === WRITER_POLL_MS.length) onWait(waiting.map(([, pid]) => pid ?? 'prepared').join(', '));
      await clock.wait(WRITER_POLL_MS[Math.min(poll, WRITER_POLL_MS.length - 1)]!, signal);
      const now = new Set((await textRows(this.sql, holders)).map(([transaction]) => transaction));
      waiting = waiting.filter(([transaction]) => now.has(transaction!));
    }
    const [row] = await textRows(this.sql, 'SELECT pg_current_snapshot()::text');
    return parseTxSnapshot(row![0]!);
  }
}

const fromOf = (table: CatalogTable): string => `${table.partitioned ? '' : 'ONLY '}${table.sqlName}`;

/** The table and, of a partitioned one, its partitions. */
function relations(table: CatalogTable): string {
  const oid = `${quoteText(table.sqlName)}::regclass`;
  return `(SELECT ${oid} AS relid UNION SELECT relid FROM pg_partition_tree(${oid})) tree`;
}

/** An expression for the published columns and the row filter, as JSON. */
function shapeOf(table: CatalogTable, publication: string): string {
  return `(SELECT json_build_array(
      (SELECT json_agg(json_build_array(a.attname, a.atttypid::int8, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
         FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND CASE WHEN r.prattrs IS NOT NULL THEN a.attnum = ANY (r.prattrs)
                   ELSE a.attgenerated = '' OR (a.attgenerated = 's' AND to_jsonb(p) ->> 'pubgencols' = 's') END),
      pg_get_expr(r.prqual, c.oid))::text
    FROM pg_class c LEFT JOIN pg_publication p ON p.pubname = ${quoteText(publication)}
    LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid WHERE c.oid = ${quoteText(table.sqlName)}::regclass)`;
}

function parseShape(table: CatalogTable, text: string): SourceShape {
  const [columns, filter] = JSON.parse(text) as [readonly [string, number, string][] | null, string | null];
  return {
    from: fromOf(table),
    columns: (columns ?? []).map(([name, typeOid, type]) => ({ name, typeOid, type })),
    filter,
  };
}

/** Runs several statements of which one is a COPY to here, and returns the rows that the others gave, as text. */
async function copyOut(sql: Client, text: string, onRow: (line: Buffer) => void): Promise<readonly TextRow[]> {
  const query = new CopyOut(text, onRow);
  const results = await new Promise<{ readonly rows: TextRow[] } | readonly { readonly rows: TextRow[] }[]>(
    (resolve, reject) => {
      query.on('error', reject);
      query.on('end', resolve as (result: unknown) => void);
      sql.query(query);
    },
  );
  if (query.failure !== undefined) throw query.failure;
  return [results].flat().flatMap(({ rows }) => rows);
}

/** pg hands the lines of a COPY to the running query; its own lets them pass. */
class CopyOut extends Query {
  failure: unknown;

  constructor(
    text: string,
    private readonly onRow: (line: Buffer) => void,
  ) {
    super({ text, rowMode: 'array', types: { getTypeParser: () => (value: string) => value } } as never);
  }

  handleCopyData({ chunk }: { readonly chunk: Buffer }): void {
    if (this.failure !== undefined) return;
    try {
      this.onRow(chunk);
    } catch (error) {
      // Thrown here it would end the process.
      this.failure = error;
    }
  }
}
