import { readAll } from './records.mjs';

/** Keys whose latest record, with tombstones applied, is not the row of the table; empty when the fold is the table. */
export async function foldDifference({ log, sql, tables, topicOf }) {
  const differences = [];
  for (const table of tables) {
    const fold = new Map();
    await readAll(log, topicOf(table), ({ key, value }) => {
      if (value === null) fold.delete(key.toString());
      else fold.set(key.toString(), value.toString());
    });
    const { rows } = await sql.query(`SELECT id, v::text AS v, b FROM ${table}`);
    for (const { id, ...row } of rows) {
      const found = fold.get(String(id));
      fold.delete(String(id));
      if (found !== JSON.stringify({ id, ...row })) differences.push(`${table} ${id}`);
    }
    for (const key of fold.keys()) differences.push(`${table} ${key} (no such row)`);
  }
  return differences;
}
