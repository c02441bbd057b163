import type { Random } from '@headwater/testing';

/** Encoders of pgoutput messages (protocol version 1), and of the frames they come in. */
export const u16 = (n: number) => Buffer.from([n >> 8, n & 255]);
export const u32 = (n: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(n >>> 0);
  return bytes;
};
export const u64 = (n: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt.asIntN(64, n));
  return bytes;
};
export const cstring = (text: string) => Buffer.from(`${text}\0`);
const letter = (text: string) => Buffer.from(text);

export type Cell = string | Buffer | null | undefined;

export interface RelationSpec {
  readonly oid: number;
  readonly name: string;
  readonly identity: 'd' | 'f' | 'i' | 'n';
  readonly columns: readonly { readonly name: string; readonly typeOid: number; readonly key: boolean }[];
}

function tuple(cells: readonly Cell[]): Buffer {
  return Buffer.concat([
    u16(cells.length),
    ...cells.map((cell) => {
      if (cell === null) return letter('n');
      if (cell === undefined) return letter('u');
      const text = Buffer.from(cell as string);
      return Buffer.concat([letter('t'), u32(text.length), text]);
    }),
  ]);
}

export const begin = (finalLsn: bigint, micros: bigint, xid: number) =>
  Buffer.concat([letter('B'), u64(finalLsn), u64(micros), u32(xid)]);
export const commit = (commitLsn: bigint, endLsn: bigint, micros = 0n) =>
  Buffer.concat([letter('C'), Buffer.from([0]), u64(commitLsn), u64(endLsn), u64(micros)]);
export const relation = ({ oid, name, identity, columns }: RelationSpec) =>
  Buffer.concat([
    letter('R'),
    u32(oid),
    cstring('public'),
    cstring(name),
    letter(identity),
    u16(columns.length),
    ...columns.map((of) => Buffer.concat([Buffer.from([of.key ? 1 : 0]), cstring(of.name), u32(of.typeOid), u32(0)])),
  ]);
export const insert = (oid: number, row: readonly Cell[]) =>
  Buffer.concat([letter('I'), u32(oid), letter('N'), tuple(row)]);
export const update = (oid: number, row: readonly Cell[], old?: readonly Cell[], kind: 'K' | 'O' = 'O') =>
  Buffer.concat([
    letter('U'),
    u32(oid),
    ...(old === undefined ? [] : [letter(kind), tuple(old)]),
    letter('N'),
    tuple(row),
  ]);
export const remove = (oid: number, old: readonly Cell[], kind: 'K' | 'O' = 'K') =>
  Buffer.concat([letter('D'), u32(oid), letter(kind), tuple(old)]);
export const truncate = (...oids: number[]) =>
  Buffer.concat([letter('T'), u32(oids.length), Buffer.from([0]), ...oids.map(u32)]);
export const logical = (transactional: boolean, lsn: bigint, prefix: string, content: string) =>
  Buffer.concat([
    letter('M'),
    Buffer.from([transactional ? 1 : 0]),
    u64(lsn),
    cstring(prefix),
    u32(Buffer.byteLength(content)),
    Buffer.from(content),
  ]);

/** The frame of the wire around a pgoutput message; in one piece, as the fuzz tests make millions. */
export function xlogData(message: Buffer, lsn = 0n): Buffer {
  const bytes = Buffer.alloc(30 + message.length);
  bytes[0] = 0x64;
  bytes.writeUInt32BE(29 + message.length, 1);
  bytes[5] = 0x77;
  const signed = BigInt.asIntN(64, lsn);
  bytes.writeBigInt64BE(signed, 6);
  bytes.writeBigInt64BE(signed, 14);
  message.copy(bytes, 30);
  return bytes;
}

export function keepalive(lsn: bigint, reply = false): Buffer {
  return Buffer.concat([letter('d'), u32(22), letter('k'), u64(lsn), u64(0n), Buffer.from([reply ? 1 : 0])]);
}

/** Column types a random relation may have, each with random texts as Postgres prints them, and some it never prints. */
const VALUES: Readonly<Record<number, (random: Random) => Cell>> = {
  20: (random) => random.pick(['-9223372036854775808', '9007199254740993', String(random.below(1e9))]),
  21: (random) => `${random.below(65_536) - 32_768}`,
  23: (random) => `${random.below(2 ** 32) - 2 ** 31}`,
  1700: (random) => random.pick(['1.10', 'NaN', '-Infinity', '1234567890123456789012345678.1234567890']),
  16: (random) => random.pick(['t', 'f']),
  701: (random) => random.pick(['1.5', '-0', '1e+20', '2.5e-07', 'NaN', 'Infinity', '-Infinity']),
  1184: (random) =>
    random.pick([
      '2026-01-31 23:59:59.123456+00',
      '2026-01-31 23:59:59+00',
      '294276-12-31 23:59:59.999999+00',
      '0044-03-15 12:00:00+00 BC',
      'infinity',
      '2026-01-31 10:00:00.5',
      '2026-01-31 10:00:00.1234567',
      '2026-01-31 10:00:00.+00',
      '',
    ]),
  1266: (random) => random.pick(['12:30:00.25+05:30', '24:00:00', '00:00:00+00', '12:30', '1:2:3', '12:30:00."+']),
  25: (random) =>
    random.pick([
      '',
      'plain',
      'tab\tquote"back\\slash\n\r\b\f\u0001\u001f\u007f',
      'Größe 漢字 🎉',
      Buffer.from([0x61, 0xff, 0x62, 0xc3]),
      Buffer.from([0xed, 0xa0, 0x80, 0x22]),
      'x'.repeat(random.below(3_000)),
      '"'.repeat(random.below(2_000)),
      'ü'.repeat(random.below(1_000)),
    ]),
  3802: (random) =>
    random.pick(['{"a": 12345678901234567890.123}', 'null', '[1,"é"]', Buffer.from([0x22, 0xff, 0x22])]),
  17: (random) => random.pick(['\\x', '\\xdeadbeef']),
  17000: (random) => random.pick(['left', 'out']),
  1009: (random) => random.pick(['{}', '{a,NULL,"q\\"x"}', '[0:1]={a,b}', '{{1},{2}}']),
};
const TYPES = Object.keys(VALUES).map(Number);

export function randomRelation(random: Random, oid: number, name: string): RelationSpec {
  const count = 1 + random.below(9);
  const keys = 1 + random.below(Math.min(3, count));
  return {
    oid,
    name,
    identity: random.pick(['d', 'f']),
    columns: Array.from({ length: count }, (_, i) => ({
      name: random.pick(['id', 'Größe "x"', 'c']) + String(i),
      typeOid: random.pick(TYPES),
      key: i < keys,
    })),
  };
}

export function randomRow(random: Random, { columns }: RelationSpec, toast = true): Cell[] {
  return columns.map(({ typeOid, key }) => {
    if (!key && random.chance(0.1)) return null;
    if (!key && toast && random.chance(0.05)) return undefined;
    return VALUES[typeOid]!(random);
  });
}
