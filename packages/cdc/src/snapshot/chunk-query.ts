import { quoteName, quoteText } from '../postgres-session.js';

/** What a snapshot has to know of one table to read it: as the catalog and the publication have it at this moment. */
export interface SourceShape {
  /** Quoted, with `ONLY` unless it is the root of partitions. */
  readonly from: string;
  /** Published columns, in the order of the table. */
  readonly columns: readonly { readonly name: string; readonly typeOid: number; readonly type: string }[];
  /** Row filter of the publication. */
  readonly filter: string | null;
}

/** A stretch of a table in the order of its key: behind `after`, up to and with `upTo`. Key columns as Postgres prints them. */
export interface Stretch {
  readonly after: readonly string[] | null;
  readonly upTo: readonly string[] | null;
}

export interface ChunkQuery {
  readonly shape: SourceShape;
  readonly key: readonly string[];
  readonly where: string | null;
  readonly stretch: Stretch;
  readonly limit: number;
}

/**
 * The rows of one chunk in key order, as a SELECT. At most `limit` rows and those that share the key of the last one: declared key columns need not be
 * unique, and the next chunk begins behind that key. Every literal has the type of its column, so that enums go by their declared order, text by its collation.
 */
export function chunkSelect({ shape, key, where, stretch, limit }: ChunkQuery): string {
  const columns = shape.columns.map(({ name }) => quoteName(name)).join(', ');
  const order = key.map(quoteName).join(', ');
  const conditions = [
    ...(shape.filter === null ? [] : [`(${shape.filter})`]),
    // On lines of its own: a comment at its end must not swallow what follows.
    ...(where === null ? [] : [`(\n${where}\n)`]),
    ...(stretch.after === null ? [] : [`${rowOf(key)} > ${literals(shape, key, stretch.after)}`]),
    ...(stretch.upTo === null ? [] : [`${rowOf(key)} <= ${literals(shape, key, stretch.upTo)}`]),
  ];
  const filter = conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`;
  return `SELECT ${columns} FROM ${shape.from}${filter} ORDER BY ${order} FETCH FIRST ${limit} ROWS WITH TIES`;
}

/** Up to `parts - 1` keys that cut the table into stretches of about equal size, from a sample of `percent` of its pages. */
export function boundariesSelect(shape: SourceShape, key: readonly string[], parts: number, percent: number): string {
  const columns = key.map(quoteName).join(', ');
  const cuts = Array.from({ length: parts - 1 }, (_, i) => `(n * ${i + 1}) / ${parts}`).join(', ');
  return (
    `SELECT DISTINCT ON (${columns}) ${key.map((name) => `${quoteName(name)}::text`).join(', ')} FROM (` +
    `SELECT ${columns}, row_number() OVER (ORDER BY ${columns}) AS i, count(*) OVER () AS n FROM ${shape.from} TABLESAMPLE SYSTEM (${percent})` +
    `) sample WHERE i IN (${cuts}) ORDER BY ${columns}`
  );
}

/** The stretches between the boundaries, which must be in key order and different. */
export function stretches(boundaries: readonly (readonly string[])[]): readonly Stretch[] {
  return [...boundaries, null].map((upTo, i) => ({ after: boundaries[i - 1] ?? null, upTo }));
}

function rowOf(key: readonly string[]): string {
  return `(${key.map(quoteName).join(', ')})`;
}

function literals(shape: SourceShape, key: readonly string[], values: readonly string[]): string {
  const cast = key.map((name, i) => {
    const type = shape.columns.find((column) => column.name === name)?.type;
    if (type === undefined) throw new RangeError(`key column ${name} is not published`);
    return `${quoteText(values[i]!)}::${type}`;
  });
  return `(${cast.join(', ')})`;
}
