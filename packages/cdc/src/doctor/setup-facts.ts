import { errorCode, errorMessage } from '@headwater/core';
import type { Client } from 'pg';
import type { CatalogTable, TableOptions } from '../catalog.js';
import { textRows } from '../postgres-session.js';
import type { ResolvedOptions } from '../capture.options.js';
import { publicationState } from '../publication.js';
import { parseTableName } from '../table-name.js';
import type { PublicationFacts, SetupFacts } from './diagnose.js';

/** What a server is looked at for. */
export type SetupWanted = TableOptions & Pick<ResolvedOptions, 'slot' | 'publication'>;

const SERVER = `
  SELECT current_setting('server_version_num'), current_setting('wal_level'), pg_is_in_recovery(),
         current_setting('max_replication_slots'), (SELECT count(*) FROM pg_replication_slots),
         (SELECT CASE WHEN active THEN 'active' ELSE 'idle' END FROM pg_replication_slots WHERE slot_name = $1),
         current_setting('max_wal_senders'), (SELECT count(*) FROM pg_stat_replication),
         current_user, r.rolsuper OR r.rolreplication, current_database(),
         has_database_privilege(current_database(), 'CREATE')
    FROM pg_roles r WHERE r.rolname = current_user`;

const UNREADABLE = `
  SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(n.nspname), has_schema_privilege(n.oid, 'USAGE')
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) w(schema, name, wanted, skipped)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')
   WHERE NOT has_schema_privilege(n.oid, 'USAGE') OR NOT (
         SELECT coalesce(bool_and(has_column_privilege(c.oid, a.attnum, 'SELECT')), true)
           FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND (w.wanted IS NULL OR w.wanted::jsonb ? a.attname) AND NOT w.skipped::jsonb ? a.attname)`;

/**
 * Reads what a capture needs of the server. Changes nothing. `refused`: what the session for replication commands failed with. `tables`: as far
 * as nothing is wrong with them.
 */
export async function readSetup(
  sql: Client,
  wanted: SetupWanted,
  tables: readonly CatalogTable[] | undefined,
  refused: unknown,
): Promise<SetupFacts> {
  const [row] = await textRows(sql, SERVER, [wanted.slot]);
  const [version, walLevel, recovery, maxSlots, slots, own, maxSenders, senders, role, replication, database, creates] =
    row!;
  const unreadable = await textRows(sql, UNREADABLE, neededColumns(wanted.tables));
  const createsInDatabase = creates === 't';
  return {
    versionNum: Number(version),
    walLevel: walLevel!,
    inRecovery: recovery === 't',
    slots: { max: Number(maxSlots), used: Number(slots), own: own === 'active' || own === 'idle' ? own : 'none' },
    senders: { max: Number(maxSenders), used: Number(senders) },
    role: { name: role!, replication: replication === 't', createsInDatabase },
    database: database!,
    generatedColumns: wanted.generatedColumns,
    replicationRefused:
      refused === undefined ? undefined : { code: errorCode(refused) ?? '', message: errorMessage(refused) },
    unreadable: unreadable.map(([sqlName, schema, usage]) => ({
      sqlName: sqlName!,
      schema: schema!,
      usage: usage === 't',
    })),
    publication: tables === undefined ? undefined : await publicationFacts(sql, wanted, tables, createsInDatabase),
  };
}

/** Per table: schema, name, the only columns that are read, those that are not. */
function neededColumns(tables: SetupWanted['tables']): readonly (readonly (string | null)[])[] {
  const known = tables.flatMap((spec) => {
    const name = parseTableName(spec.table);
    const skipped = Object.entries(spec.columns ?? {}).filter(([, rule]) => rule === 'exclude');
    return name === undefined ? [] : [{ ...name, only: spec.only, skipped: skipped.map(([column]) => column) }];
  });
  return [
    known.map(({ schema }) => schema),
    known.map(({ table }) => table),
    known.map(({ only }) => (only === undefined ? null : JSON.stringify(only))),
    known.map(({ skipped }) => JSON.stringify(skipped)),
  ];
}

async function publicationFacts(
  sql: Client,
  { publication: name, generatedColumns }: SetupWanted,
  tables: readonly CatalogTable[],
  createsInDatabase: boolean,
): Promise<PublicationFacts | undefined> {
  if (tables.some(({ spec }) => spec.only !== undefined || spec.where !== undefined)) return undefined;
  const state = await publicationState(sql, name, tables, generatedColumns);
  const [owned] = await textRows(
    sql,
    `SELECT (SELECT coalesce(bool_and(pg_has_role(relowner, 'USAGE')), true) FROM pg_class WHERE oid = ANY ($1::regclass[])),
            (SELECT pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = $2)`,
    [tables.map((table) => table.sqlName), name],
  );
  const ownsTables = owned![0] === 't';
  const mayChange = ownsTables && (state === 'missing' ? createsInDatabase : owned![1] === 't');
  return { name, exists: state !== 'missing', fits: state === 'fits', mayChange, tables };
}
