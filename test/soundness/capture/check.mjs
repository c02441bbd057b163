import { headerText } from '@headwater/core';
import { readAll } from './records.mjs';

/**
 * Compares what a committed-only reader sees with the journal: per key the same changes in the same order, per transaction hw_seq 0…n−1, and
 * snapshot rows that are the row as of their place, each key's once. `streamedFrom`: changes of the journal after this number must be in the stream.
 */
export async function check({ log, sql, tables, topicOf, streamedFrom }) {
  const faults = [];
  const seqs = new Map();
  const wanted = new Map();
  const counts = { records: 0, snapshotRows: 0, beforeStream: 0 };
  for (const table of tables) {
    const journal = await journalOf(sql, table);
    for (const changes of journal.values()) for (const { xid } of changes) wanted.set(xid, (wanted.get(xid) ?? 0) + 1);
    const seen = await seenOf(log, topicOf(table), counts, seqs);
    for (const key of new Set([...journal.keys(), ...seen.keys()]))
      checkKey(`${table} ${key}`, journal.get(key) ?? [], seen.get(key) ?? [], { streamedFrom, counts, faults });
  }
  for (const [xid, found] of seqs) {
    const sorted = found.toSorted((x, y) => x - y);
    if (sorted.length !== wanted.get(xid) || sorted.some((seq, index) => seq !== index))
      faults.push(
        `transaction ${xid}: hw_seq ${sorted.slice(0, 20)} (${sorted.length} records) for ${wanted.get(xid)} changes`,
      );
  }
  if (faults.length > 0) throw new Error(`${faults.length} faults, such as:\n${faults.slice(0, 10).join('\n')}`);
  return { ...counts, transactions: seqs.size };
}

function checkKey(name, journal, seen, { streamedFrom, counts, faults }) {
  const streamed = seen.filter(({ xid }) => xid !== undefined);
  const skipped = journal.length - streamed.length;
  const fault = (what) => faults.push(`${name}: ${what}`);
  if (skipped < 0) return fault(`${streamed.length} changes seen, ${journal.length} made`);
  for (const [index, change] of streamed.entries()) {
    const made = journal[skipped + index];
    if (text(made) !== text(change))
      return fault(`seen ${text(change)} where ${text(made)} was made (change ${index} of ${streamed.length})`);
  }
  const late = journal.slice(0, skipped).find(({ n }) => n > streamedFrom);
  if (late !== undefined) return fault(`${text(late)} is missing`);
  counts.beforeStream += skipped;
  // A snapshot row tells the row as of its place among the changes, and once.
  let place = skipped;
  let rows = 0;
  for (const { xid, op, v, b } of seen) {
    if (xid !== undefined) {
      place += 1;
      continue;
    }
    rows += 1;
    const last = journal[place - 1];
    const now = last !== undefined && last.op !== 'd' ? `${last.v} ${last.b}` : undefined;
    if (op !== 'r' || `${v} ${b}` !== now) return fault(`snapshot record ${op} ${v} ${b} where the row is ${now}`);
  }
  if (rows > 1) return fault(`${rows} snapshot rows`);
  const before = journal[skipped - 1];
  if (streamed.length === 0 && before !== undefined && before.op !== 'd' && rows === 0) fault('the snapshot lacks it');
}

const text = (change) => change && `${change.op} ${change.xid} ${change.v} ${change.b}`;

async function journalOf(sql, table) {
  const { rows } = await sql.query(
    `SELECT n::int AS n, op, xid::text AS xid, id::text AS key, v::text AS v, b FROM journal WHERE tbl = $1 ORDER BY n`,
    [table],
  );
  const keys = new Map();
  for (const { key, ...change } of rows) {
    if (!keys.has(key)) keys.set(key, []);
    keys.get(key).push(change);
  }
  return keys;
}

async function seenOf(log, topic, counts, seqs) {
  const keys = new Map();
  await readAll(log, topic, (record) => note(record, keys, counts, seqs));
  return keys;
}

function note({ key, value, headers }, keys, counts, seqs) {
  const [op, tx, seq] = ['hw_op', 'hw_tx', 'hw_seq'].map((name) => headerText(headers, name));
  const xid = /^\d+$/.test(tx) ? tx : undefined;
  const row = value === null ? { v: null, b: null } : JSON.parse(value.toString());
  const id = key.toString();
  if (!keys.has(id)) keys.set(id, []);
  keys.get(id).push({ op, xid, v: row.v, b: row.b });
  counts.records += 1;
  if (op === 'r') counts.snapshotRows += 1;
  if (xid === undefined) return;
  if (!seqs.has(xid)) seqs.set(xid, []);
  seqs.get(xid).push(Number(seq));
}
