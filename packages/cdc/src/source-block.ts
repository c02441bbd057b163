import { putVarint } from '@headwater/core';
import type { Header } from '@headwater/core';
import { putBytes, putDigits } from './json-bytes.js';
import type { Lsn } from './lsn.js';

/** Microseconds between 1970 and 2000, where Postgres begins to count. */
const EPOCH_MICROS = 946_684_800_000_000;
const [LSN, TX, TS] = ['hw_lsn', 'hw_tx', 'hw_ts'].map((name) =>
  Buffer.from([name.length * 2, ...Buffer.from(name), 0]),
);
const HEX = Buffer.from('0123456789ABCDEF');

/** The headers that all records of one source transaction share, as the bytes they have in a record. Filled again for each transaction. */
export class SourceBlock {
  /** hw_lsn. */
  lsn: Uint8Array = new Uint8Array(64);
  lsnLength = 0;
  /** hw_tx, hw_ts. */
  txTs: Uint8Array = new Uint8Array(128);
  txTsLength = 0;
  /** What the context message of the transaction asked for. */
  context: Uint8Array = NOTHING;
  contextCount = 0;

  /** Of a source transaction. `micros`: since 2000. */
  setTransaction(lsn: Lsn, xid: number, micros: bigint): void {
    const start = putBytes(this.lsn, 0, LSN!, 0);
    let at = putHex(this.lsn, start, Number(lsn >> 32n));
    this.lsn[at++] = 0x2f;
    at = putHex(this.lsn, at, Number(lsn & 0xffff_ffffn));
    // Shorter than 64 bytes: each length is one byte.
    this.lsn[start - 1] = (at - start) * 2;
    this.lsnLength = at;
    const txAt = putBytes(this.txTs, 0, TX!, 0);
    at = putDigits(this.txTs, txAt, xid);
    this.txTs[txAt - 1] = (at - txAt) * 2;
    const tsAt = putBytes(this.txTs, at, TS!, 0);
    at = putMicros(this.txTs, tsAt, micros);
    this.txTs[tsAt - 1] = (at - tsAt) * 2;
    this.txTsLength = at;
    this.setContext([]);
  }

  setContext(context: readonly Header[]): void {
    this.context = context.length === 0 ? NOTHING : headers(context);
    this.contextCount = context.length;
  }

  /** Of anything else, as a snapshot or a message of its own. `micros`: since 1970. */
  set(lsn: string, tx: string, micros: bigint): this {
    this.lsn = headers([['hw_lsn', Buffer.from(lsn)]]);
    this.txTs = headers([
      ['hw_tx', Buffer.from(tx)],
      ['hw_ts', Buffer.from(micros.toString())],
    ]);
    this.lsnLength = this.lsn.length;
    this.txTsLength = this.txTs.length;
    return this;
  }
}

const NOTHING = new Uint8Array(0);

function headers(of: readonly Header[]): Uint8Array {
  const room = of.reduce((sum, [name, value]) => sum + 10 + 3 * name.length + (value?.length ?? 0), 0);
  const bytes = Buffer.alloc(room);
  let at = 0;
  for (const [name, value] of of) {
    at = putVarint(bytes, at, Buffer.byteLength(name));
    at += bytes.write(name, at);
    at = putVarint(bytes, at, value?.length ?? -1);
    at += value?.copy(bytes, at) ?? 0;
  }
  return bytes.subarray(0, at);
}

function putMicros(target: Uint8Array, at: number, since2000: bigint): number {
  const micros = Number(since2000) + EPOCH_MICROS;
  if (micros >= 0 && Number.isSafeInteger(micros)) return putDigits(target, at, micros);
  return putBytes(target, at, Buffer.from((since2000 + BigInt(EPOCH_MICROS)).toString()), 0);
}

/** Of an unsigned 32-bit number, without leading zeros. */
function putHex(target: Uint8Array, at: number, value: number): number {
  let shift = 28;
  while (shift > 0 && value >>> shift === 0) shift -= 4;
  for (; shift >= 0; shift -= 4) target[at++] = HEX[(value >>> shift) & 15]!;
  return at;
}
