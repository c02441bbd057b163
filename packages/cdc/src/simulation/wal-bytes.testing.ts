import type { Lsn } from '../lsn.js';

/** A table as the walsender describes it. */
export interface WalTable {
  readonly oid: number;
  readonly name: string;
  readonly replicaIdentity: 'd' | 'f';
  readonly columns: readonly { readonly name: string; readonly typeOid: number; readonly key: boolean }[];
}

/** `undefined`: an unchanged TOAST value, which is not sent. */
export type WalRow = readonly (string | null | undefined)[];

/** Microseconds between 1970 and 2000. */
const EPOCH = 946_684_800_000_000n;

/** pgoutput messages, protocol version 1, as the documentation of Postgres lays them out; written here a second time, apart from the decoder. */
export const pgoutput = {
  begin: (finalLsn: Lsn, micros: bigint, xid: number) =>
    Buffer.concat([text('B'), int64(finalLsn), int64(micros - EPOCH), int32(xid)]),
  commit: (commitLsn: Lsn, endLsn: Lsn, micros: bigint) =>
    Buffer.concat([text('C'), int8(0), int64(commitLsn), int64(endLsn), int64(micros - EPOCH)]),
  relation: ({ oid, name, replicaIdentity, columns }: WalTable) =>
    Buffer.concat([
      text('R'),
      int32(oid),
      zeroed('public'),
      zeroed(name),
      text(replicaIdentity),
      int16(columns.length),
      ...columns.flatMap((column) => [
        int8(column.key || replicaIdentity === 'f' ? 1 : 0),
        zeroed(column.name),
        int32(column.typeOid),
        int32(-1),
      ]),
    ]),
  insert: (oid: number, row: WalRow) => Buffer.concat([text('I'), int32(oid), text('N'), tuple(row)]),
  update: (oid: number, old: { readonly kind: 'K' | 'O'; readonly row: WalRow } | undefined, row: WalRow) =>
    Buffer.concat([
      text('U'),
      int32(oid),
      ...(old === undefined ? [] : [text(old.kind), tuple(old.row)]),
      text('N'),
      tuple(row),
    ]),
  delete: (oid: number, kind: 'K' | 'O', row: WalRow) => Buffer.concat([text('D'), int32(oid), text(kind), tuple(row)]),
  message: (transactional: boolean, lsn: Lsn, prefix: string, content: Buffer) =>
    Buffer.concat([text('M'), int8(transactional ? 1 : 0), int64(lsn), zeroed(prefix), int32(content.length), content]),
};

/** CopyData frames around what a walsender says. */
export const frame = {
  data: (lsn: Lsn, message: Buffer) => copyData(Buffer.concat([text('w'), int64(lsn), int64(lsn), int64(0n), message])),
  keepalive: (walEnd: Lsn, replyRequested: boolean) =>
    copyData(Buffer.concat([text('k'), int64(walEnd), int64(0n), int8(replyRequested ? 1 : 0)])),
};

function copyData(body: Buffer): Buffer {
  return Buffer.concat([text('d'), int32(body.length + 4), body]);
}

function tuple(row: WalRow): Buffer {
  const parts = row.map((value) => {
    if (value === undefined) return text('u');
    if (value === null) return text('n');
    const bytes = Buffer.from(value);
    return Buffer.concat([text('t'), int32(bytes.length), bytes]);
  });
  return Buffer.concat([int16(row.length), ...parts]);
}

const text = (of: string): Buffer => Buffer.from(of);
const zeroed = (of: string): Buffer => Buffer.from(`${of}\0`);

function int8(value: number): Buffer {
  return Buffer.from([value]);
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function int64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(value);
  return bytes;
}
