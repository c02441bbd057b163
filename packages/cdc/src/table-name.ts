/** A table as the catalog spells it. */
export interface TableName {
  readonly schema: string;
  readonly table: string;
}

const PART = /^(?:"((?:[^"]|"")+)"|([^".]+))$/;

/**
 * Reads `schema.table`. A part with a dot or a quote in it stands in double quotes, as in SQL; everything else is taken as the catalog
 * spells it, case included. Undefined when it cannot be read in exactly one way.
 */
export function parseTableName(text: string): TableName | undefined {
  const parts = text.match(/"(?:[^"]|"")*"|[^".]+|\.|"/g) ?? [];
  const [schema, dot, table] = parts;
  if (parts.length !== 3 || dot !== '.') return undefined;
  const names = [schema!, table!].map((part) => {
    const [, quoted, plain] = PART.exec(part) ?? [];
    return quoted?.replaceAll('""', '"') ?? plain;
  });
  return names[0] === undefined || names[1] === undefined ? undefined : { schema: names[0], table: names[1] };
}

/** `schema.table`, with quotes only where the text would have a second reading: `"a.b".c` and `a."b.c"` stay two tables. */
export function formatTableName({ schema, table }: TableName): string {
  return `${part(schema)}.${part(table)}`;
}

function part(name: string): string {
  return /[."]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
}

/**
 * `<prefix>.<schema>.<table>` in the characters that Kafka allows. Any other byte of a name, a dot within it included, becomes `-xHH` (two hex digits),
 * so that two tables never share a topic.
 */
export function topicOfTable(prefix: string, { schema, table }: TableName): string {
  return `${prefix}.${legal(schema)}.${legal(table)}`;
}

function legal(name: string): string {
  const escaped = name.replaceAll(/-(?=x[0-9a-f]{2})|[^A-Za-z0-9_-]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `-x${byte.toString(16).padStart(2, '0')}`).join(''),
  );
  return escaped;
}
