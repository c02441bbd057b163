import type { Client } from 'pg';
import { tablesInvalid } from './cdc.errors.js';
import type { CapturedTable, ResolvedOptions } from './capture.options.js';
import { columnRuleFaults } from './column-rules.js';
import type { PgType } from './json-types.js';
import { textRows } from './postgres-session.js';
import { parseTableName } from './table-name.js';
import type { OwnTopicOptions } from './own-topics.js';
import { topicFaults } from './topic-faults.js';

const TYPES = `
  SELECT t.oid, t.typname, t.typtype, CASE WHEN t.typoutput = 'array_out'::regproc THEN t.typelem ELSE 0 END,
         coalesce(e.typdelim, t.typdelim), t.typbasetype,
         (SELECT json_agg(json_build_array(a.attname, a.atttypid::int8) ORDER BY a.attnum)
            FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
    FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
   WHERE t.typtype <> 'p'
     AND (t.typtype <> 'c' OR t.typrelid IN (SELECT oid FROM pg_class WHERE relnamespace <> 'pg_catalog'::regnamespace))`;

export async function readTypes(client: Client): Promise<ReadonlyMap<number, PgType>> {
  const rows = await textRows(client, TYPES);
  return new Map(
    rows.map(([oid, name, kind, element, delimiter, base, fields]) => [
      Number(oid),
      {
        oid: Number(oid),
        name: name ?? '',
        kind: kind as PgType['kind'],
        elementOid: Number(element),
        delimiter: delimiter ?? ',',
        baseOid: Number(base),
        fields: (JSON.parse(fields ?? '[]') as [string, number][]).map(([field, typeOid]) => ({
          name: field,
          typeOid,
        })),
      },
    ]),
  );
}

/** A table that may be captured. */
export interface CatalogTable {
  readonly spec: CapturedTable;
  /** Quoted, for SQL. */
  readonly sqlName: string;
  readonly partitioned: boolean;
  readonly replicaIdentity: 'd' | 'f' | 'i';
  /** What is published of it: what the publication leaves out and what a rule excludes is not among them. */
  readonly columns: readonly { readonly name: string; readonly typeOid: number }[];
  readonly keyColumns: readonly string[];
  /** Of all columns, the unpublished ones included. */
  readonly names: readonly string[];
}

const TABLES = `
  SELECT w.n, c.oid::regclass, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind, c.relpersistence, c.relreplident,
         (SELECT json_agg(json_build_array(a.attname, a.atttypid::int8) ORDER BY a.attnum) FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (a.attgenerated = '' OR a.attgenerated = $3)),
         (SELECT json_agg(a.attname ORDER BY k.n) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, n), pg_attribute a
           WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.attnum AND k.n <= i.indnkeyatts),
         (SELECT json_agg(a.attname ORDER BY k.n) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, n), pg_attribute a
           WHERE i.indrelid = c.oid AND i.indisreplident AND a.attrelid = c.oid AND a.attnum = k.attnum AND k.n <= i.indnkeyatts),
         (SELECT json_agg(l.oid::regclass::text ORDER BY l.oid) FROM pg_partition_tree(CASE c.relkind WHEN 'p' THEN c.oid END) t, pg_class l
           WHERE t.isleaf AND l.oid = t.relid AND c.relreplident = 'f' AND l.relreplident <> 'f')
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(schema, name, n)
    LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace)
      ON n.nspname = w.schema AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
   ORDER BY w.n`;

/** Reads the wanted tables; all that is wrong with them comes as one CDC_TABLES_INVALID, each fault with its remedy. */
export async function readTables(client: Client, options: TableOptions): Promise<readonly CatalogTable[]> {
  const { tables: specs, generatedColumns, hashKey } = options;
  const names = specs.map((spec) => parseTableName(spec.table));
  const wanted = [
    names.map((name) => name?.schema ?? null),
    names.map((name) => name?.table ?? null),
    generatedColumns === 'stored' ? 's' : '',
  ];
  const rows = await textRows(client, TABLES, wanted);
  const faults: string[] = topicFaults(specs, options);
  const tables: CatalogTable[] = [];
  for (const [n, , sqlName, kind, persistence, identity, columns, primary, index, leaves] of rows) {
    const spec = specs[Number(n) - 1]!;
    const columnsOf = (json: string | null | undefined) => (JSON.parse(json ?? '[]') ?? []) as string[];
    const parsed = (JSON.parse(columns ?? '[]') as [string, number][]).map(([column, typeOid]) => ({
      name: column,
      typeOid,
    }));
    const facts: TableFacts = {
      kind: kind ?? null,
      persistence: persistence ?? null,
      identity: identity ?? null,
      columns: parsed.map((column) => column.name),
      primary: columnsOf(primary),
      index: columnsOf(index),
      leaves: columnsOf(leaves),
    };
    const found = tableFaults(spec, facts, hashKey);
    faults.push(...found);
    if (found.length > 0) continue;
    tables.push({
      spec,
      sqlName: sqlName!,
      partitioned: kind === 'p',
      replicaIdentity: identity as 'd' | 'f' | 'i',
      columns: parsed.filter(({ name }) => isPublished(spec, name)),
      keyColumns: tableKey(spec, facts),
      names: facts.columns,
    });
  }
  if (faults.length > 0) throw tablesInvalid(faults);
  return tables;
}

/** What of the options of a capture concerns its tables. */
export type TableOptions = OwnTopicOptions & Pick<ResolvedOptions, 'tables' | 'generatedColumns' | 'hashKey'>;

function isPublished({ only, columns }: CapturedTable, name: string): boolean {
  return (only === undefined || only.includes(name)) && columns?.[name] !== 'exclude';
}

export interface TableFacts {
  readonly kind: string | null;
  readonly persistence: string | null;
  readonly identity: string | null;
  readonly columns: readonly string[];
  readonly primary: readonly string[];
  readonly index: readonly string[];
  /** Partitions whose old rows are not sent whole although those of the table are. */
  readonly leaves: readonly string[];
}

function tableKey(spec: CapturedTable, facts: TableFacts): readonly string[] {
  return spec.keyColumns ?? (facts.primary.length > 0 ? facts.primary : facts.index);
}

/** What keeps a table from being captured, each with its remedy. */
export function tableFaults(spec: CapturedTable, facts: TableFacts, hashKey?: string): string[] {
  const { table } = spec;
  if (parseTableName(table) === undefined)
    return [`${table}: not schema.table. Write both; a part with a dot or quote in it stands in double quotes.`];
  if (facts.kind === null) return [`${table}: no such table. Create it, or correct the name (schema.table).`];
  if (facts.kind !== 'r' && facts.kind !== 'p') return [`${table}: not a table. Capture the tables behind it.`];
  if (facts.persistence === 'u')
    return [`${table}: unlogged, so it is not in the WAL. ALTER TABLE ${table} SET LOGGED.`];
  if (facts.persistence === 't') return [`${table}: temporary, so it is not in the WAL. Make it an ordinary table.`];
  if (facts.identity === 'n') {
    return [`${table}: REPLICA IDENTITY NOTHING hides keys. ALTER TABLE ${table} REPLICA IDENTITY DEFAULT (or FULL).`];
  }
  const key = tableKey(spec, facts);
  if (key.length === 0) {
    return [
      `${table}: no primary key. Add one, or a unique index with ALTER TABLE ${table} REPLICA IDENTITY USING INDEX, or declare keyColumns and ALTER TABLE ${table} REPLICA IDENTITY FULL.`,
    ];
  }
  const missing = key.filter((column) => !facts.columns.includes(column));
  if (missing.length > 0) return [`${table}: key column(s) ${missing.join(', ')} do not exist. Correct keyColumns.`];
  const sent = facts.identity === 'f' ? facts.columns : facts.identity === 'i' ? facts.index : facts.primary;
  const routed = routeFaults(spec, facts, sent);
  if (routed.length > 0) return routed;
  const needed = identityColumns(spec, key);
  const hidden = needed.filter((column) => !sent.includes(column));
  // A key update is only sent with its old key when the replica identity covers exactly the key, and what chooses the partition.
  if (hidden.length > 0 || (facts.identity !== 'f' && sent.length !== needed.length)) {
    return [
      `${table}: key (${key.join(', ')}) is not the replica identity (${sent.join(', ')}). ALTER TABLE ${table} REPLICA IDENTITY FULL, or declare keyColumns as the identity.`,
    ];
  }
  const unlisted = spec.only === undefined ? [] : sent.filter((column) => !spec.only!.includes(column));
  if (unlisted.length > 0) {
    return [
      `${table}: only lacks ${unlisted.join(', ')} of the replica identity, and Postgres would refuse every UPDATE. Add it, or set another REPLICA IDENTITY.`,
    ];
  }
  const { columns = {}, partitionBy } = spec;
  return columnRuleFaults(table, columns, facts.columns, { key, partitionBy }, hashKey);
}

/** What an old row has to tell: its key, and what chose its partition. */
export function identityColumns({ partitionBy = [] }: CapturedTable, key: readonly string[]): readonly string[] {
  return [...new Set([...key, ...partitionBy])];
}

function routeFaults({ table, partitionBy }: CapturedTable, facts: TableFacts, sent: readonly string[]): string[] {
  if (partitionBy === undefined) return [];
  if (partitionBy.length === 0) return [`${table}: partitionBy names no column. Leave it out: the key chooses then.`];
  const missing = partitionBy.filter((column) => !facts.columns.includes(column));
  if (missing.length > 0)
    return [`${table}: partitionBy column(s) ${missing.join(', ')} do not exist. Correct partitionBy.`];
  const hidden = partitionBy.filter((column) => !sent.includes(column));
  if (hidden.length > 0)
    return [
      `${table}: partitionBy needs ${hidden.join(', ')} of old rows, and the replica identity (${sent.join(', ')}) lacks it. ALTER TABLE ${table} REPLICA IDENTITY FULL, or USING INDEX of a unique index on the key and it.`,
    ];
  return facts.leaves.map(
    (leaf) =>
      `${table}: partitionBy needs the old rows of its partition ${leaf} too. ALTER TABLE ${leaf} REPLICA IDENTITY FULL.`,
  );
}
