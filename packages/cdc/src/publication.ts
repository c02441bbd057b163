import type { Client } from 'pg';
import { CaptureError } from './cdc.errors.js';
import type { CatalogTable } from './catalog.js';
import { quoteName, textRows } from './postgres-session.js';
import type { PublicationSeen } from './source.js';
import { parseTableName } from './table-name.js';

interface Found {
  readonly oid: number;
  readonly allTables: boolean;
  readonly options: boolean;
  readonly generated: boolean;
  readonly tables: string;
}

/** Makes the publication publish exactly these tables, and returns its OID. Alters it only when it differs. One for all tables is taken as it is. */
export async function ensurePublication(
  sql: Client,
  name: string,
  tables: readonly CatalogTable[],
  generated: 'none' | 'stored',
): Promise<number> {
  const list = tables.map((table) => itemOf(table)).join(', ');
  const stored = generated === 'stored' ? ', publish_generated_columns = stored' : '';
  const options = `publish = 'insert, update, delete, truncate', publish_via_partition_root = true${stored}`;
  const found = await readPublication(sql, name, generated);
  // Before anything is changed: Postgres takes a filter that hides keys, and then refuses every UPDATE of the application.
  const wanted = found?.allTables === true ? found.tables : await wantedTables(sql, tables);
  if (found === undefined) {
    // Without tables a publication still carries the outbox: logical messages belong to no table.
    await sql.query(`CREATE PUBLICATION ${quoteName(name)} ${list === '' ? '' : `FOR ${list}`} WITH (${options})`);
  } else {
    if (found.allTables) refuseRules(name, tables);
    else if (found.tables !== wanted) await setTables(sql, name, list);
    if (!found.options || !found.generated) await sql.query(`ALTER PUBLICATION ${quoteName(name)} SET (${options})`);
  }
  return (await readPublication(sql, name, generated))!.oid;
}

/**
 * Whether the publication is as `ensurePublication` would leave it, for tables without lists of columns and filters: those only the server can
 * compare, with a publication on trial that takes rights.
 */
export async function publicationState(
  sql: Client,
  name: string,
  tables: readonly CatalogTable[],
  generated: 'none' | 'stored',
): Promise<'missing' | 'fits' | 'differs'> {
  const found = await readPublication(sql, name, generated);
  if (found === undefined) return 'missing';
  const fits =
    found.options && found.generated && (found.allTables || found.tables === (await wantedTables(sql, tables)));
  return fits ? 'fits' : 'differs';
}

/**
 * Whether the publication is there, `oid` being that of the one known. Postgres writes a commit record before it lets anybody see the
 * transaction, and keeps its locks until then: so the lock of a DROP is looked for first, and the publication after it, in a snapshot of its own.
 */
export async function seePublication(sql: Client, name: string, oid: number): Promise<PublicationSeen> {
  const [locks, found] = await Promise.all([
    textRows(
      sql,
      `SELECT FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_publication'::regclass AND objid = $1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND mode = 'AccessExclusiveLock' AND granted`,
      [oid],
    ),
    textRows(sql, 'SELECT oid FROM pg_publication WHERE pubname = $1', [name]),
  ]);
  return { oid: found[0] === undefined ? undefined : Number(found[0][0]), changing: locks.length > 0 };
}

/** Wanted tables whose changes the publication does not carry: made again under their name, or taken out of it. Undefined: there is no publication. */
export async function unpublishedTables(
  sql: Client,
  name: string,
  tables: readonly CatalogTable[],
): Promise<readonly string[] | undefined> {
  const names = tables.map(({ spec }) => parseTableName(spec.table)!);
  const rows = await textRows(
    sql,
    `SELECT w.n FROM pg_publication p, unnest($2::text[], $3::text[]) WITH ORDINALITY w(schema, name, n)
      WHERE p.pubname = $1 AND NOT EXISTS (SELECT FROM pg_publication_tables t
        WHERE t.pubname = p.pubname AND t.schemaname = w.schema AND t.tablename = w.name)
      UNION ALL SELECT 0 FROM (SELECT) one WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)`,
    [name, names.map(({ schema }) => schema), names.map(({ table }) => table)],
  );
  if (rows[0]?.[0] === '0') return undefined;
  return rows.map(([n]) => tables[Number(n) - 1]!.spec.table);
}

const WHOLE: readonly string[] = [];

function itemOf({ partitioned, sqlName, spec }: CatalogTable, only = spec.only ?? WHOLE): string {
  const columns = only.length === 0 ? '' : ` (${only.map(quoteName).join(', ')})`;
  // On a line of its own: a comment at its end must not swallow what follows.
  const where = spec.where === undefined ? '' : ` WHERE (${spec.where}\n)`;
  return `TABLE ${partitioned ? '' : 'ONLY '}${sqlName}${columns}${where}`;
}

const CONTENTS = `coalesce(json_agg(json_build_array(r.prrelid::int8, (SELECT array_agg(a ORDER BY a) FROM unnest(r.prattrs) a),
  pg_get_expr(r.prqual, r.prrelid)) ORDER BY r.prrelid) FILTER (WHERE r.oid IS NOT NULL), '[]')`;

async function readPublication(sql: Client, name: string, generated: string): Promise<Found | undefined> {
  const [row] = await textRows(
    sql,
    `SELECT p.oid, p.puballtables, p.pubviaroot AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate,
            coalesce(to_jsonb(p)->>'pubgencols', 'n') = $2, ${CONTENTS}
       FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE p.pubname = $1 GROUP BY p.oid`,
    [name, generated === 'stored' ? 's' : 'n'],
  );
  if (row === undefined) return undefined;
  const [oid, all, options, columns, tables] = row;
  return {
    oid: Number(oid),
    allTables: all === 't',
    options: options === 't',
    generated: columns === 't',
    tables: tables!,
  };
}

/** What the server would make of the tables. Filters are compared as it prints them: it is asked with a publication that is never committed. */
async function wantedTables(sql: Client, tables: readonly CatalogTable[]): Promise<string> {
  if (tables.every(({ spec }) => spec.only === undefined && spec.where === undefined)) {
    const [row] = await textRows(
      sql,
      `SELECT coalesce(json_agg(json_build_array(t::regclass::oid::int8, NULL, NULL) ORDER BY t::regclass::oid), '[]') FROM unnest($1::text[]) t`,
      [tables.map(({ sqlName }) => sqlName)],
    );
    return row![0]!;
  }
  const trial = 'headwater trial';
  await sql.query('BEGIN');
  try {
    const filtered = tables.filter(({ spec }) => spec.where !== undefined).map((table) => itemOf(table, WHOLE));
    if (filtered.length > 0) {
      await sql.query(`CREATE PUBLICATION ${quoteName('headwater filters')} FOR ${filtered.join(', ')}`);
      await refuseHiddenFilters(sql, 'headwater filters');
    }
    await sql.query(`CREATE PUBLICATION ${quoteName(trial)} FOR ${tables.map((table) => itemOf(table)).join(', ')}`);
    return (await readPublication(sql, trial, 'none'))!.tables;
  } finally {
    await sql.query('ROLLBACK');
  }
}

function refuseRules(name: string, tables: readonly CatalogTable[]): void {
  const faults = tables
    .filter(({ spec }) => spec.only !== undefined || spec.where !== undefined)
    .map(
      ({ spec }) =>
        `${spec.table}: publication "${name}" is for all tables and has no filters. Name another publication.`,
    );
  if (faults.length > 0) throw new CaptureError('CDC_TABLES_INVALID', faults.join(' '), { faults });
}

async function refuseHiddenFilters(sql: Client, name: string): Promise<void> {
  const rows = await textRows(
    sql,
    `SELECT r.prrelid::regclass::text, string_agg(DISTINCT a.attname, ', ')
       FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid
       JOIN pg_depend d ON d.classid = 'pg_publication_rel'::regclass AND d.objid = r.oid AND d.refobjid = r.prrelid AND d.refobjsubid > 0
       JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = d.refobjsubid
      WHERE p.pubname = $1 AND c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i
        WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey) AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END)
      GROUP BY 1`,
    [name],
  );
  if (rows.length === 0) return;
  const faults = rows.map(
    ([table, columns]) =>
      `${table}: the filter reads ${columns}, which the replica identity lacks. ALTER TABLE ${table} REPLICA IDENTITY FULL, or filter by key columns.`,
  );
  throw new CaptureError('CDC_TABLES_INVALID', faults.join(' '), { faults });
}

/** SET wants at least one table: an empty publication is reached by dropping what is in it. */
async function setTables(sql: Client, name: string, list: string): Promise<void> {
  if (list !== '') {
    await sql.query(`ALTER PUBLICATION ${quoteName(name)} SET ${list}`);
    return;
  }
  const [published] = await textRows(
    sql,
    `SELECT string_agg(prrelid::regclass::text, ', ') FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1`,
    [name],
  );
  await sql.query(`ALTER PUBLICATION ${quoteName(name)} DROP TABLE ${published![0]}`);
}
