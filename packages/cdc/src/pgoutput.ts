import { errorMessage } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import type { Lsn } from './lsn.js';

/** One column of a row: its text, `null` for SQL NULL, `undefined` for an unchanged TOAST value that was not sent. */
export type Column = string | null | undefined;
export type Tuple = readonly Column[];

export interface RelationColumn {
  readonly name: string;
  readonly typeOid: number;
  /** Part of the replica identity. */
  readonly identity: boolean;
}

export interface Relation {
  readonly type: 'relation';
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly replicaIdentity: 'd' | 'n' | 'f' | 'i';
  readonly columns: readonly RelationColumn[];
}

export interface LogicalMessage {
  readonly type: 'message';
  readonly transactional: boolean;
  readonly lsn: Lsn;
  readonly prefix: string;
  readonly content: Buffer;
}

/** What the stream tells besides rows and their transactions: those TransactionAssembler reads in place. */
export type RareMessage =
  | { readonly type: 'origin'; readonly lsn: Lsn; readonly name: string }
  | Relation
  | { readonly type: 'type'; readonly oid: number; readonly schema: string; readonly name: string }
  | { readonly type: 'truncate'; readonly relations: readonly number[]; readonly flags: number }
  | LogicalMessage;

/** Microseconds between 1970 and 2000, where Postgres begins to count. */
export const EPOCH_MICROS = 946_684_800_000_000n;

/** Decodes one message that is no row and no begin or commit (protocol version 1). As `decoded`. */
export function decodeRare(bytes: Buffer, at: string): RareMessage {
  return decoded(bytes, at, rareBody);
}

/**
 * One message as `body` reads it behind its tag. Every byte must be accounted for: a truncated, overlong or unknown message is CDC_PROTOCOL
 * naming its type and `at`, the LSN it came with (P6).
 */
export function decoded<T>(bytes: Buffer, at: string, body: (tag: string, cursor: Cursor) => T): T {
  const tag = bytes.length === 0 ? 'none' : String.fromCharCode(bytes[0]!);
  try {
    const cursor = new Cursor(bytes, 1);
    const message = body(tag, cursor);
    if (cursor.left !== 0) throw new RangeError(`${cursor.left} bytes too many`);
    return message;
  } catch (error) {
    throw undecodable(tag, at, error);
  }
}

/** What is told of a message that cannot be decoded. */
export function undecodable(tag: string, at: string, error: unknown): CaptureError {
  return new CaptureError(
    'CDC_PROTOCOL',
    `message of type "${tag}" at ${at} cannot be decoded: ${errorMessage(error)}. Nothing of it was published or acknowledged. ` +
      'Check that nothing between capture and the server alters bytes, then start capture again.',
    { type: tag, lsn: at },
    error,
  );
}

export function rareBody(tag: string, c: Cursor): RareMessage {
  switch (tag) {
    case 'O':
      return { type: 'origin', lsn: c.lsn(), name: c.cstring() };
    case 'R':
      return relation(c);
    case 'Y':
      return { type: 'type', oid: c.uint32(), schema: c.cstring(), name: c.cstring() };
    case 'T': {
      const count = c.uint32();
      const flags = c.uint8();
      c.need(count * 4);
      return { type: 'truncate', flags, relations: Array.from({ length: count }, () => c.uint32()) };
    }
    case 'M': {
      const flags = c.uint8();
      if (flags > 1) throw new RangeError(`unknown flags ${flags}`);
      return {
        type: 'message',
        transactional: flags === 1,
        lsn: c.lsn(),
        prefix: c.cstring(),
        content: c.bytes(c.uint32()),
      };
    }
    default:
      throw new RangeError('unknown message type');
  }
}

const IDENTITIES: Readonly<Record<number, Relation['replicaIdentity']>> = {
  0x64: 'd',
  0x6e: 'n',
  0x66: 'f',
  0x69: 'i',
};

function relation(c: Cursor): Relation {
  const oid = c.uint32();
  const schema = c.cstring() || 'pg_catalog';
  const name = c.cstring();
  const replicaIdentity = IDENTITIES[c.uint8()];
  if (replicaIdentity === undefined) throw new RangeError('unknown replica identity');
  const columns: RelationColumn[] = [];
  for (let left = c.uint16(); left > 0; left--) {
    const flags = c.uint8();
    if (flags > 1) throw new RangeError(`unknown column flags ${flags}`);
    const column = c.cstring();
    const typeOid = c.uint32();
    c.uint32(); // type modifier
    columns.push({ name: column, typeOid, identity: flags === 1 });
  }
  return { type: 'relation', oid, schema, name, replicaIdentity, columns };
}

export class Cursor {
  constructor(
    private readonly buffer: Buffer,
    private offset: number,
  ) {}

  get left(): number {
    return this.buffer.length - this.offset;
  }

  need(count: number): void {
    if (count > this.left) throw new RangeError(`${count - this.left} bytes are missing`);
  }

  uint8(): number {
    this.need(1);
    return this.buffer[this.offset++]!;
  }

  uint16(): number {
    this.need(2);
    this.offset += 2;
    return this.buffer.readUInt16BE(this.offset - 2);
  }

  uint32(): number {
    this.need(4);
    this.offset += 4;
    return this.buffer.readUInt32BE(this.offset - 4);
  }

  lsn(): Lsn {
    this.need(8);
    this.offset += 8;
    return this.buffer.readBigUInt64BE(this.offset - 8) as Lsn;
  }

  cstring(): string {
    const end = this.buffer.indexOf(0, this.offset);
    if (end < 0) throw new RangeError('a string has no end');
    const text = this.buffer.toString('utf8', this.offset, end);
    this.offset = end + 1;
    return text;
  }

  bytes(length: number): Buffer {
    this.need(length);
    this.offset += length;
    return this.buffer.subarray(this.offset - length, this.offset);
  }
}
