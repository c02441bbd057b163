import type { Client } from 'pg';
import type { CatalogTable } from '../catalog.js';
import { quoteName, textRows } from '../postgres-session.js';
import type { Finding } from './diagnose.js';

const WEAK = `
  SELECT w.n FROM unnest($1::regclass[], $2::text[]) WITH ORDINALITY w(relid, key, n)
   WHERE NOT EXISTS (SELECT FROM pg_index i
     WHERE i.indrelid = w.relid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
       AND NOT EXISTS (SELECT FROM unnest(i.indkey) WITH ORDINALITY k(attnum, n), pg_attribute a
         WHERE k.n <= i.indnkeyatts AND a.attrelid = i.indrelid AND a.attnum = k.attnum
           AND NOT (a.attnotnull AND w.key::jsonb ? a.attname)))
   ORDER BY w.n`;

/** Tables whose declared key the server does not hold to be unique and NOT NULL. Capture runs; what it says of such rows is not what the table says. */
export async function weakKeys(sql: Client, tables: readonly CatalogTable[]): Promise<Finding[]> {
  const declared = tables.filter(({ spec }) => spec.keyColumns !== undefined);
  const rows = await textRows(sql, WEAK, [
    declared.map(({ sqlName }) => sqlName),
    declared.map(({ keyColumns }) => JSON.stringify(keyColumns)),
  ]);
  return rows.map(([n]) => {
    const { keyColumns, spec, sqlName } = declared[Number(n) - 1]!;
    const columns = keyColumns.map(quoteName).join(', ');
    return {
      severity: 'warning',
      about: spec.table,
      message: `${spec.table}: keyColumns (${keyColumns.join(', ')}) are not unique and NOT NULL: rows that share a key replace each other, a DELETE of one removes all, and NULL stops capture.`,
      fix: `CREATE UNIQUE INDEX ON ${sqlName} (${columns}); ${keyColumns.map((name) => `ALTER TABLE ${sqlName} ALTER ${quoteName(name)} SET NOT NULL;`).join(' ')}`,
    };
  });
}
