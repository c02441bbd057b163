import type { Random } from '@headwater/testing';

/** A type under test: what it is called, random values of it as SQL, and what CONTRACT 5 makes of one, as SQL that yields JSON text. */
export interface SampleType {
  readonly name: string;
  readonly value: (random: Random) => string;
  /** For a value that is not null. Written in SQL, so that it shares nothing with the code under test. */
  readonly json: (x: string) => string;
}

const quote = (text: string) => `'${text.replaceAll("'", "''")}'`;
const pick = <T>(random: Random, from: readonly T[]): T => random.pick(from);
const digits = (random: Random, most: number) =>
  Array.from({ length: 1 + random.below(most) }, () => random.below(10)).join('');
const hex = (random: Random, bytes: number) =>
  Array.from({ length: bytes }, () => random.below(256).toString(16).padStart(2, '0')).join('');

/** What quoting, escaping and counting of lengths go wrong over. */
const PIECES = Array.from('aB "\'\\,{}()[]:;\n\r\t\u0001\u001f\u007f\u0085\u2028éß漢🦉/?<&').concat(
  '7 e\u0301 => NULL null $1'.split(' '),
);
const nasty = (random: Random) => Array.from({ length: random.below(7) }, () => pick(random, PIECES)).join('');
const word = (random: Random) =>
  Array.from({ length: 1 + random.below(6) }, () => pick(random, ['a', 'b', 'Z', '0'])).join('');

// concat prints with the type's output function; a cast to text may do more (inet) or less (char).
const asText = (x: string) => `to_json(concat(${x}))::text`;
const asIs = (x: string) => `${x}::text`;
const float = (x: string) =>
  `CASE WHEN ${x}::text IN ('NaN', 'Infinity', '-Infinity') THEN '"' || ${x} || '"' ELSE ${x}::text END`;
const AD = `'-infinity'::timestamp, 'infinity'::timestamp`;
const plain = (x: string) => `(${x})::timestamp NOT IN (${AD}) AND extract(year FROM ${x}) > 0`;
const stamp = (x: string, shown: string, zone: string) =>
  `CASE WHEN ${plain(shown)} THEN to_char(${shown}, '"\\""YYYY-MM-DD"T"HH24:MI:SS.US"${zone}\\""') ELSE ${asText(x)} END`;

const number = (name: string, value: SampleType['value']): SampleType => ({ name, value, json: asIs });
const text = (name: string, value: SampleType['value']): SampleType => ({ name, value, json: asText });

const date = (random: Random) => {
  const year = pick(random, [1 + random.below(9_999), 1900 + random.below(200), 9_999 + random.below(280_000)]);
  const month = 1 + random.below(12);
  return [
    String(year).padStart(4, '0'),
    String(month).padStart(2, '0'),
    String(1 + random.below(28)).padStart(2, '0'),
  ].join('-');
};
const clock = (random: Random) =>
  `${String(random.below(24)).padStart(2, '0')}:${String(random.below(60)).padStart(2, '0')}:${String(random.below(60)).padStart(2, '0')}` +
  pick(random, ['', '.5', '.000001', '.120', `.${digits(random, 6)}`]);
const zone = (random: Random) => pick(random, ['+00', '+05:30', '-11', '+13:45', '-03:30']);
const number_ = (random: Random) =>
  `${pick(random, ['', '-'])}${digits(random, 30)}${pick(random, ['', '.', `.${digits(random, 12)}`])}`;
const double = (random: Random) =>
  quote(
    pick(random, [
      'NaN',
      'Infinity',
      '-Infinity',
      '0',
      '-0',
      `${(random.fraction() - 0.5) * 10 ** random.below(30)}`,
      '1e-30',
      '0.1',
    ]),
  );
const json = (random: Random, depth = 0): string => {
  const kinds = depth > 2 ? 4 : 6;
  switch (random.below(kinds)) {
    case 0:
      return JSON.stringify(nasty(random));
    case 1:
      return `${pick(random, ['', '-'])}${pick(random, ['0', `9${digits(random, 25)}`])}${pick(random, ['', `.${digits(random, 20)}`, 'e7', 'E-5'])}`;
    case 2:
      return pick(random, ['true', 'false', 'null']);
    case 3:
      return pick(random, ['{}', '[]', '12345678901234567890.123', '-0']);
    case 4:
      return `[${Array.from({ length: random.below(4) }, () => json(random, depth + 1)).join(' , ')}]`;
    default:
      return `{${Array.from({ length: random.below(4) }, (_, i) => `${JSON.stringify(nasty(random) + i)} : ${json(random, depth + 1)}`).join(',')}}`;
  }
};
const point = (random: Random) => `(${(random.fraction() * 100).toFixed(random.below(6))},${random.below(50) - 25})`;
const range = (random: Random, one: () => string, order: (a: string, b: string) => number) => {
  if (random.below(6) === 0) return 'empty';
  const [low, high] = [one(), one()].toSorted(order);
  const [from, to] = [pick(random, [low, low, '']), pick(random, [high, high, ''])];
  return `${pick(random, ['[', '('])}${from},${to}${pick(random, [']', ')'])}`;
};
const ints = (random: Random) =>
  range(
    random,
    () => String(random.below(1_000) - 500),
    (a, b) => Number(a) - Number(b),
  );
const days = (random: Random) =>
  range(
    random,
    () => `20${10 + random.below(90)}-01-0${1 + random.below(9)}`,
    (a, b) => (a < b ? -1 : 1),
  );

export const SCALARS: readonly SampleType[] = [
  number('int2', (r) => `'${r.below(65_536) - 32_768}'`),
  number('int4', (r) => `'${pick(r, [-2_147_483_648, 2_147_483_647, r.below(1_000)])}'`),
  number('oid', (r) => `'${pick(r, [4_294_967_295, r.below(100_000)])}'`),
  text('int8', (r) => `'${pick(r, ['-9223372036854775808', '9223372036854775807', `9007199254${digits(r, 6)}`])}'`),
  text('numeric', (r) => quote(pick(r, [number_(r), number_(r), 'NaN', 'Infinity', '-Infinity', '1.10', '0.000']))),
  text('numeric(40,10)', (r) => quote(number_(r))),
  text('money', (r) => `'${r.below(1_000_000) - 500_000}.${10 + r.below(90)}'`),
  { name: 'float8', value: double, json: float },
  { name: 'float4', value: double, json: float },
  { name: 'bool', value: (r) => pick(r, ['true', 'false']), json: asIs },
  text('text', (r) => quote(nasty(r))),
  text('varchar(20)', (r) => quote(nasty(r).slice(0, 9))),
  text('char(5)', (r) => quote(word(r).slice(0, 5))),
  text('"char"', (r) => quote(pick(r, ['a', ',', '"', '\\', '']))),
  text('name', (r) => quote(nasty(r).slice(0, 9))),
  text('uuid', (r) => `'${hex(r, 16)}'`),
  text('inet', (r) => `'${r.below(256)}.${r.below(256)}.0.${r.below(256)}/${pick(r, [8, 24, 32])}'`),
  text('cidr', (r) => pick(r, [`'10.${r.below(256)}.0.0/16'`, `'2001:db8::/32'`])),
  text('macaddr', (r) => `'${hex(r, 6)}'`),
  text('macaddr8', (r) => `'${hex(r, 8)}'`),
  text('bit(5)', (r) => `B'${Array.from({ length: 5 }, () => r.below(2)).join('')}'`),
  text('varbit', (r) => `B'${Array.from({ length: r.below(20) }, () => r.below(2)).join('')}'`),
  text('interval', (r) =>
    quote(
      `${r.below(99) - 50} mon ${r.below(99) - 50} days ${pick(r, ['', '-'])}${r.below(50)}:${10 + r.below(49)}:07.${digits(r, 6)}`,
    ),
  ),
  text('date', (r) => pick(r, [quote(date(r)), `'0044-03-15 BC'`, `'infinity'`, `'-infinity'`])),
  {
    name: 'time',
    value: (r) => quote(pick(r, [clock(r), clock(r), '24:00:00'])),
    json: (x) => `'"' || to_char(${x}, 'HH24:MI:SS.US') || '"'`,
  },
  {
    name: 'timetz',
    value: (r) => quote(pick(r, [clock(r), clock(r), '24:00:00']) + zone(r)),
    json: (x) => `'"' || to_char(${x}::time, 'HH24:MI:SS.US') || substring(${x}::text FROM '[+-].*$') || '"'`,
  },
  {
    name: 'timestamp',
    value: (r) =>
      quote(
        pick(r, [
          `${date(r)} ${clock(r)}`,
          `${date(r)} ${clock(r)}`,
          '0044-03-15 12:00:00 BC',
          'infinity',
          '-infinity',
        ]),
      ),
    json: (x) => stamp(x, x, ''),
  },
  {
    name: 'timestamptz',
    value: (r) =>
      quote(
        pick(r, [
          `${date(r)} ${clock(r)}${zone(r)}`,
          `${date(r)} ${clock(r)}`,
          '4713-01-01 00:00:00+00 BC',
          'infinity',
          '-infinity',
        ]),
      ),
    json: (x) => stamp(x, `(${x} AT TIME ZONE 'UTC')`, 'Z'),
  },
  { name: 'json', value: (r) => quote(json(r)), json: asIs },
  { name: 'jsonb', value: (r) => quote(json(r)), json: asIs },
  {
    name: 'bytea',
    value: (r) => `'\\x${hex(r, r.below(120))}'`,
    json: (x) => `'"' || translate(encode(${x}, 'base64'), E'\\n', '') || '"'`,
  },
  text('int4range', (r) => quote(ints(r))),
  text('int8range', (r) => quote(ints(r))),
  text('numrange', (r) => quote(ints(r))),
  text('daterange', (r) => quote(days(r))),
  text('tsrange', (r) => quote(days(r))),
  text('tstzrange', (r) => quote(days(r))),
  text('int4multirange', (r) => quote(`{${Array.from({ length: r.below(3) }, () => ints(r)).join(',')}}`)),
  text('tstzmultirange', (r) => quote(`{${Array.from({ length: r.below(3) }, () => days(r)).join(',')}}`)),
  text('point', (r) => quote(point(r))),
  text('lseg', (r) => quote(`[${point(r)},${point(r)}]`)),
  text('box', (r) => quote(`${point(r)},${point(r)}`)),
  text('path', (r) => quote(pick(r, [`[${point(r)},${point(r)}]`, `(${point(r)},${point(r)})`]))),
  text('polygon', (r) => quote(`(${point(r)},${point(r)},${point(r)})`)),
  text('circle', (r) => quote(`<${point(r)},${1 + r.below(9)}>`)),
  text('line', (r) => quote(`{1,${r.below(9)},${r.below(9)}}`)),
  text('tsvector', (r) => `to_tsvector('simple', ${quote(nasty(r) + word(r))})`),
  text('tsquery', (r) => `plainto_tsquery('simple', ${quote(word(r))})`),
  text('pg_lsn', (r) => `'${r.below(99)}/${hex(r, 4)}'`),
  text('xid8', (r) => `'9${digits(r, 12)}'`),
  text('jsonpath', (r) => `'$.${word(r).replaceAll(/[0-9]/g, 'x')}[*]'`),
];

/** Types of contrib modules, where the server has them. */
export const EXTENSIONS: Readonly<Record<string, SampleType>> = {
  citext: text('citext', (r) => quote(nasty(r))),
  ltree: text('ltree', (r) => quote(`${word(r)}.${word(r)}`)),
  cube: text('cube', (r) => quote(`(${r.below(9)}, ${r.below(9)}.5)`)),
  isn: text('isbn', () => `'978-0-393-04002-9'`),
  vector: text('vector', (r) => quote(`[${r.below(9)},${r.below(9)}.5]`)),
  postgis: text('geometry', (r) => `ST_Point(${r.below(90)}, ${r.below(90)})`),
  hstore: {
    name: 'hstore',
    value: (r) =>
      `hstore(ARRAY[${Array.from({ length: r.below(4) }, (_, i) => `[${quote(`${i}${nasty(r)}`)}, ${pick(r, ['NULL', quote(nasty(r))])}]`).join(',')}]::text[])`,
    json: (x) =>
      `(SELECT '{' || coalesce(string_agg(to_json(k)::text || ':' || coalesce(to_json(v)::text, 'null'), ',' ORDER BY n), '') || '}'
          FROM each(${x}) WITH ORDINALITY e(k, v, n))`,
  },
};

const orNull = (type: SampleType, x: string) =>
  `CASE WHEN ${x} IS NOT DISTINCT FROM NULL THEN 'null' ELSE ${type.json(x)} END`;

let subscripts = 0;

/** Arrays of up to two dimensions, some with bounds of their own, taken apart by subscripts. */
export function arrayOf(element: SampleType): SampleType {
  const name = `${element.name}[]`;
  const one = (random: Random) => (random.below(5) === 0 ? 'NULL' : `${element.value(random)}::${element.name}`);
  const many = (random: Random, count: number) => Array.from({ length: count }, () => one(random)).join(', ');
  const list = (x: string, dimension: number, i: string, inner: string) =>
    `(SELECT '[' || string_agg(${inner}, ',' ORDER BY ${i}) || ']' FROM generate_subscripts(${x}, ${dimension}) ${i})`;
  return {
    name,
    value: (random) => {
      switch (random.below(5)) {
        case 0:
          return `'{}'::${name}`;
        case 1: {
          const width = 1 + random.below(3);
          return `ARRAY[[${many(random, width)}], [${many(random, width)}]]::${name}`;
        }
        case 2:
          return `('[-1:0]=' || ARRAY[${many(random, 2)}]::${name}::text)::${name}`;
        default:
          return `ARRAY[${many(random, 1 + random.below(4))}]::${name}`;
      }
    },
    json: (x) => {
      // Names of their own: x may hold the subscripts of an outer array.
      const [i, j] = [`i${++subscripts}`, `j${subscripts}`];
      return `CASE coalesce(array_ndims(${x}), 0) WHEN 0 THEN '[]'
        WHEN 1 THEN ${list(x, 1, i, orNull(element, `(${x})[${i}]`))}
        ELSE ${list(x, 1, i, list(x, 2, j, orNull(element, `(${x})[${i}][${j}]`)))} END`;
    },
  };
}

export function domainOf(name: string, base: SampleType): SampleType {
  return { name, value: base.value, json: (x) => base.json(`(${x})::${base.name}`) };
}

export function compositeOf(name: string, fields: Readonly<Record<string, SampleType>>): SampleType {
  const parts = Object.entries(fields);
  const json = (x: string) =>
    parts.map(
      ([field, type]) =>
        `to_json(${quote(field)}::text)::text || ':' || ${orNull(type, `(${x})."${field.replaceAll('"', '""')}"`)}`,
    );
  return {
    name,
    value: (random) =>
      `ROW(${parts.map(([, type]) => (random.below(5) === 0 ? 'NULL' : `${type.value(random)}::${type.name}`)).join(', ')})::${name}`,
    json: (x) => `'{' || ${json(x).join(` || ',' || `)} || '}'`,
  };
}

/** A row of CONTRACT 5's JSON for a table whose columns are called c0, c1, … */
export function rowJson(types: readonly SampleType[]): string {
  const columns = types.map((type, i) => `',"c${i}":' || ${orNull(type, `c${i}`)}`);
  return `'{"id":' || id || ${columns.join(' || ')} || '}'`;
}

/** The places where two texts begin to differ; undefined when they are equal. */
export function difference(found: string | undefined, wanted: string): string | undefined {
  if (found === wanted) return undefined;
  let at = 0;
  while (at < wanted.length && found?.[at] === wanted[at]) at++;
  return `found …${found?.slice(Math.max(0, at - 80), at + 40)}…, wanted …${wanted.slice(Math.max(0, at - 80), at + 40)}…`;
}
