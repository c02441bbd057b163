import { parseArray, parseComposite, parseHstore } from './pg-text.js';
import type { Nested } from './pg-text.js';

/** What pg_type tells about one type. */
export interface PgType {
  readonly oid: number;
  readonly name: string;
  readonly kind: 'b' | 'c' | 'd' | 'e' | 'p' | 'r' | 'm';
  /** Element type when the type prints as an array, else 0. */
  readonly elementOid: number;
  readonly delimiter: string;
  /** Base type of a domain, else 0. */
  readonly baseOid: number;
  /** Fields of a composite, else empty. */
  readonly fields: readonly { readonly name: string; readonly typeOid: number }[];
}

/** From the text of a value to the text of its JSON. Digits are copied, never passed through a double. */
export type JsonEncoder = (text: string) => string;

/** Encoders by type, by the table in CONTRACT 5, built when first asked for. A type that is not known prints as a string. */
export class JsonTypes {
  readonly #encoders = new Map<number, JsonEncoder>();

  constructor(private readonly types: ReadonlyMap<number, PgType>) {}

  has(oid: number): boolean {
    return SCALARS.has(oid) || this.types.has(oid);
  }

  encoder(oid: number): JsonEncoder {
    const known = SCALARS.get(oid) ?? this.#encoders.get(oid);
    if (known !== undefined) return known;
    const built = this.#build(this.types.get(oid));
    this.#encoders.set(oid, built);
    return built;
  }

  #build(type: PgType | undefined): JsonEncoder {
    if (type === undefined) return string;
    if (type.kind === 'd') return this.encoder(type.baseOid);
    if (type.elementOid !== 0) return arrayOf(this.encoder(type.elementOid), type.delimiter);
    if (type.kind === 'c') return composite(type.fields.map((f) => [JSON.stringify(f.name), this.encoder(f.typeOid)]));
    if (type.name === 'hstore') return hstore;
    return string;
  }
}

/** How a value is written from bytes; `other`: by its text encoder only. */
export type ScalarForm = 'string' | 'integer' | 'float' | 'boolean' | 'timestamp' | 'time' | 'json' | 'other';

/** The form of an encoder that `JsonTypes` gave. */
export function scalarForm(encode: JsonEncoder): ScalarForm {
  return FORMS.get(encode) ?? 'other';
}

const string: JsonEncoder = (text) => JSON.stringify(text);
const integer: JsonEncoder = (text) => checked(text, /^-?\d+$/, 'an integer');
const json: JsonEncoder = (text) => text;
const float: JsonEncoder = (text) =>
  /^(NaN|-?Infinity)$/.test(text) ? `"${text}"` : checked(text, /^[\d.e+-]+$/, 'a number');
const bool: JsonEncoder = (text) => (checked(text, /^[tf]$/, 'a boolean') === 't' ? 'true' : 'false');
const bytea: JsonEncoder = (text) => `"${Buffer.from(text.slice(2), 'hex').toString('base64')}"`;

/** What Postgres never prints is damage. */
function checked(text: string, form: RegExp, what: string): string {
  if (!form.test(text)) throw new RangeError(`not ${what}`);
  return text;
}

const TIMESTAMP = /^(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(\+00)?$/;
const timestamp: JsonEncoder = (text) => {
  const match = TIMESTAMP.exec(text);
  // BC dates and infinities stay as Postgres prints them.
  if (match === null) return string(text);
  return `"${match[1]}T${match[2]}.${(match[3] ?? '').padEnd(6, '0')}${match[4] === undefined ? '' : 'Z'}"`;
};
const TIME = /^(\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?([+-][\d:]*)?$/;
const time: JsonEncoder = (text) => {
  const match = TIME.exec(text);
  return match === null ? string(text) : `"${match[1]}.${(match[2] ?? '').padEnd(6, '0')}${match[3] ?? ''}"`;
};

const hstore: JsonEncoder = (text) =>
  `{${parseHstore(text)
    .map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`)
    .join(',')}}`;

function composite(fields: readonly (readonly [name: string, encode: JsonEncoder])[]): JsonEncoder {
  return (text) => {
    const values = parseComposite(text);
    return `{${fields
      .map(
        ([name, encode], i) => `${name}:${values[i] === null || values[i] === undefined ? 'null' : encode(values[i])}`,
      )
      .join(',')}}`;
  };
}

function arrayOf(encode: JsonEncoder, delimiter: string): JsonEncoder {
  const nested = (item: Nested): string =>
    item === null ? 'null' : typeof item === 'string' ? encode(item) : `[${item.map(nested).join(',')}]`;
  return (text) => nested(parseArray(text, delimiter));
}

const SCALARS: ReadonlyMap<number, JsonEncoder> = new Map([
  [16, bool],
  [17, bytea],
  [21, integer],
  [23, integer],
  [26, integer],
  [114, json],
  [3802, json],
  [700, float],
  [701, float],
  [1083, time],
  [1114, timestamp],
  [1184, timestamp],
  [1266, time],
]);

const FORMS: ReadonlyMap<JsonEncoder, ScalarForm> = new Map([
  [string, 'string'],
  [integer, 'integer'],
  [float, 'float'],
  [bool, 'boolean'],
  [timestamp, 'timestamp'],
  [time, 'time'],
  [json, 'json'],
]);
