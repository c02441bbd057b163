import { systemClock } from '@headwater/core';
import type { Clock } from '@headwater/core';
import type { Client } from 'pg';
import { keyChanged } from './verify-slot.js';
import { identityColumns, readTables, readTypes } from './catalog.js';
import { CaptureError } from './cdc.errors.js';
import type { CatalogTable, TableOptions } from './catalog.js';
import { excluded, ruled, ruleName } from './column-rules.js';
import { JsonTypes } from './json-types.js';
import type { PgType } from './json-types.js';
import { OutboxMessages } from './outbox-key.js';
import type { Relation, Tuple } from './pgoutput.js';
import { quoteName } from './postgres-session.js';
import { readPresentRow } from './re-read.js';
import { tableShape } from './rows.js';
import type { TableShape } from './rows.js';
import { formatTableName } from './table-name.js';
import type { TableLookup } from './transaction-assembler.js';

export interface KeyedRow {
  readonly shape: TableShape;
  readonly row: Tuple;
}

/** The captured tables and their types, as the catalog had them at the start of the connection. */
export class SourceTables implements TableLookup {
  #json: JsonTypes;

  constructor(
    private readonly sql: Client,
    readonly tables: readonly CatalogTable[],
    private types: ReadonlyMap<number, PgType>,
    readonly messages: OutboxMessages,
    private readonly hashKey: string | undefined,
    private readonly clock: Clock,
  ) {
    this.#json = new JsonTypes(types);
  }

  static async read(sql: Client, options: TableOptions & { readonly clock?: Clock }): Promise<SourceTables> {
    const tables = await readTables(sql, options);
    const [types, messages] = [await readTypes(sql), await OutboxMessages.of(sql)];
    return new SourceTables(sql, tables, types, messages, options.hashKey, options.clock ?? systemClock);
  }

  /** What the keys of each table are made of, and where they lie: what must stay the same in a topic. */
  get keys(): Readonly<Record<string, readonly string[]>> {
    return Object.fromEntries(this.tables.map((table) => [table.spec.table, keyForm(table)]));
  }

  /** The shape of a table with these columns, which may be other ones than at the start. */
  async shapeWith(table: CatalogTable, columns: CatalogTable['columns']): Promise<TableShape> {
    await this.#learnTypes(columns);
    return this.#shape(table, columns);
  }

  /** The shape a table has from this Relation message on. */
  async shape(relation: Relation): Promise<TableShape | undefined> {
    const name = formatTableName({ schema: relation.schema, table: relation.name });
    const table = this.#table(name);
    if (table === undefined) return undefined;
    const identity = relation.columns.filter((column) => column.identity).map((column) => column.name);
    const full = relation.replicaIdentity === 'f';
    const needed = identityColumns(table.spec, table.keyColumns);
    const fits = full
      ? needed.every((column) => relation.columns.some(({ name: found }) => found === column))
      : identity.length === needed.length && needed.every((column) => identity.includes(column));
    if (!fits) throw keyChanged(name, needed, identity);
    await this.#learnTypes(relation.columns);
    return this.#shape(table, relation.columns, full);
  }

  /** A type made after the start: read the catalog again. */
  async #learnTypes(columns: CatalogTable['columns']): Promise<void> {
    if (columns.every((column) => this.#json.has(column.typeOid))) return;
    this.types = await readTypes(this.sql);
    this.#json = new JsonTypes(this.types);
  }

  async readRow(shape: TableShape, row: Tuple, xid: number): Promise<Tuple | undefined> {
    const table = this.#table(shape.table);
    if (table === undefined || table.spec.toast === 'mark') return undefined;
    if (shape.key.some((i) => typeof row[i] !== 'string')) return undefined;
    const values = shape.key.map((i) => row[i]);
    try {
      return await this.#present(table, shape, { where: '', values, xid });
    } catch (error) {
      // A column or the table has gone since: the header hw_unchanged will say what is missing.
      if (/^42(703|P01)$/.test(String((error as { code?: unknown }).code))) return undefined;
      throw error;
    }
  }

  /**
   * The row that has this key text now, if it is one that is published; undefined: it is gone. `xid`: a transaction whose work it must show. Rejects with
   * CDC_VALUE_OMITTED when the table is not captured, or with another key; with the server's error.
   */
  async readByKey(name: string, key: string, xid: number | undefined): Promise<KeyedRow | undefined> {
    const table = this.#table(name);
    const values = table && keyTexts(table, key);
    if (table === undefined || values === undefined) throw omitted(name, key);
    const shape = await this.shapeWith(table, table.columns);
    const where = table.spec.where === undefined ? '' : ` AND (${table.spec.where})`;
    const row = await this.#present(table, shape, { where, values, xid });
    return row && { shape, row };
  }

  #table(name: string): CatalogTable | undefined {
    return this.tables.find(({ spec }) => spec.table === name);
  }

  #present(
    { sqlName }: CatalogTable,
    shape: TableShape,
    { where, values, xid }: { where: string; values: Tuple; xid: number | undefined },
  ): Promise<Tuple | undefined> {
    const key = shape.key.map((i, n) => `${quoteName(shape.columns[i]!.name)} = $${n + 1}`).join(' AND ');
    // What is left out is not read either.
    const wanted = shape.columns.map(({ name, encode }) => (encode === excluded ? 'NULL' : quoteName(name))).join(', ');
    const select = `${wanted} FROM ${sqlName} WHERE ${key}${where}`;
    return readPresentRow(this.sql, this.clock, { select, values, xid });
  }

  #shape(table: CatalogTable, columns: CatalogTable['columns'], tellsOld = false): TableShape {
    refuseLostRules(table, columns);
    const rules = table.spec.columns ?? {};
    const encoded = columns.map(({ name, typeOid }) => ({
      name,
      encode: ruled(rules[name], this.#json.encoder(typeOid), this.hashKey),
      type: this.#typeName(typeOid),
      ...(rules[name] !== undefined && { rule: ruleName(rules[name]) }),
    }));
    return tableShape(table.spec, encoded, table.keyColumns, tellsOld);
  }

  #typeName(oid: number): string {
    const type = this.types.get(oid);
    if (type === undefined) return `type ${oid}`;
    return type.elementOid === 0 ? type.name : `${this.#typeName(type.elementOid)}[]`;
  }
}

/** Of a key as `keyText` makes it; undefined: it has another form. */
function keyTexts({ spec, keyColumns }: CatalogTable, key: string): readonly string[] | undefined {
  if (keyColumns.length === 1 && spec.keyWithTable !== true) return [key];
  try {
    const parts: unknown = JSON.parse(key);
    if (!Array.isArray(parts) || !parts.every((part) => typeof part === 'string')) return undefined;
    const values = spec.keyWithTable === true ? parts.slice(1) : parts;
    return values.length === keyColumns.length ? values : undefined;
  } catch {
    return undefined;
  }
}

function omitted(table: string, key: string): CaptureError {
  return new CaptureError(
    'CDC_VALUE_OMITTED',
    `the value of ${table} with key ${JSON.stringify(key)} was not kept, and no captured row has such a key now. Capture its table again as it was, then retry what is parked; or discard it.`,
    { table, key },
  );
}

function keyForm({ spec, keyColumns }: CatalogTable): readonly string[] {
  return [
    ...keyColumns,
    ...(spec.keyWithTable === true ? ['with the table'] : []),
    ...(spec.partitionBy === undefined ? [] : [`partitioned by ${spec.partitionBy.join(', ')}`]),
  ];
}

/** A renamed column would be published in clear: its rule knows it by the old name. */
function refuseLostRules({ spec, names }: CatalogTable, columns: CatalogTable['columns']): void {
  const sent = columns.map(({ name }) => name);
  const lost = Object.keys(spec.columns ?? {}).filter(
    (name) => !sent.includes(name) && spec.only?.includes(name) !== false,
  );
  const unknown = sent.filter((name) => !names.includes(name));
  if (lost.length === 0 || unknown.length === 0) return;
  throw new CaptureError(
    'CDC_COLUMN_RULE_LOST',
    `${spec.table} lost column ${lost.join(', ')}, for which there is a rule, and has ${unknown.join(', ')}: a renamed column would be published in clear. ` +
      'Nothing of the new columns was published. Give the rule to the new name and take a new snapshot (snapshot "when-needed", slot dropped), or rename the column back.',
    { table: spec.table, lost, unknown },
  );
}
