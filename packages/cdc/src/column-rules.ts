import { createHmac } from 'node:crypto';
import type { JsonEncoder } from './json-types.js';

/**
 * What becomes of a column before anything else sees it, in snapshot and stream alike. `exclude`: it is left out. `mask`: the text `***`.
 * `hash`: HMAC-SHA-256 with `hashKey` over its text, in hex, so that equal values stay equal. `truncate`: that many characters of its text.
 * NULL stays null under all of them. What is not left out becomes a JSON string, whatever the type of the column.
 */
export type ColumnRule = 'exclude' | 'mask' | 'hash' | { readonly truncate: number };

/** In place of the encoder of a column that is left out. */
export const excluded: JsonEncoder = () => '';

const MASK: JsonEncoder = () => '"***"';

/** The encoder of a column under its rule. Throws RangeError for what `columnRuleFaults` refuses. Pure. */
export function ruled(rule: ColumnRule | undefined, encode: JsonEncoder, hashKey: string | undefined): JsonEncoder {
  if (rule === undefined) return encode;
  if (rule === 'exclude') return excluded;
  if (rule === 'mask') return MASK;
  if (rule !== 'hash') return (text) => JSON.stringify(Array.from(text).slice(0, rule.truncate).join(''));
  if (hashKey === undefined) throw new RangeError('hash without hashKey');
  return (text) => `"${createHmac('sha256', hashKey).update(text).digest('hex')}"`;
}

/** The rule without its figures. */
export const ruleName = (rule: ColumnRule): string => (typeof rule === 'string' ? rule : 'truncate');

/** What is wrong with the rules of a table, each with its remedy. */
export function columnRuleFaults(
  table: string,
  rules: Readonly<Record<string, ColumnRule>>,
  columns: readonly string[],
  { key, partitionBy = [] }: { readonly key: readonly string[]; readonly partitionBy?: readonly string[] | undefined },
  hashKey: string | undefined,
): string[] {
  return Object.entries(rules).flatMap(([column, rule]) => {
    const at = `${table}: the rule for column ${column}`;
    // A name that is misspelt must not let the values through.
    if (!columns.includes(column)) return [`${at} matches nothing. Correct the name, or remove the rule.`];
    if (key.includes(column))
      return [
        `${at}: it is part of the key, which has no rules: snapshots keep how far they are by it, in clear. Declare other keyColumns, or key the table by a column that may be seen.`,
      ];
    if (partitionBy.includes(column))
      return [`${at}: its text chooses the partition, and would show. Leave it out of partitionBy.`];
    if (rule === 'hash' && (hashKey === undefined || hashKey === ''))
      return [`${at}: hash needs a key. Give capture a hashKey.`];
    if (rule === 'exclude' || rule === 'mask' || rule === 'hash') return [];
    return Number.isSafeInteger(rule?.truncate) && rule.truncate >= 0
      ? []
      : [`${at} is not known. Write "exclude", "mask", "hash" or { "truncate": 10 }.`];
  });
}
