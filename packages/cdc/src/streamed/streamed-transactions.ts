import { CaptureError } from '../cdc.errors.js';
import { formatLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import { CONTEXT_PREFIX, OUTBOX_PREFIX } from '../outbox-message.js';
import { undecodable } from '../pgoutput.js';
import type { WalMessage } from '../transaction-assembler.js';
import { WalFrames } from '../wal-frames.js';
import type { Spool, StreamedFrame } from './spool.js';
import type { Spools } from './spools.js';

/** A message of the stream, in its frame. */
export type FramedMessage = WalMessage & StreamedFrame;

export interface StreamedOptions {
  /** Absent: streams were not asked for. */
  readonly spools: Spools | undefined;
  /** Takes what protocol version 1 would have brought now; the message must stay as it is until the promise is over. */
  readonly put: (message: WalMessage) => Promise<void> | undefined;
  /** Whether the outbox's messages become records. */
  readonly outbox: boolean;
  /** Aborted: what is not begun is left to the next start. */
  readonly signal: AbortSignal;
}

/** A transaction that is streamed and not over. */
interface Streamed {
  readonly spools: Spools;
  readonly spool: Spool;
  /** Where the first message of each subtransaction lies, and whether a message of the outbox lies right before it. */
  readonly subs: Map<number, { readonly at: number; readonly loose: boolean }>;
  /** Their ids, in that order. */
  readonly order: number[];
  /** Relations that the server believes it has sent in this transaction, with the place of their last description in the stream. */
  readonly sent: Map<number, number>;
  /** Messages of the outbox came after the last row. */
  loose: boolean;
}

interface Block {
  readonly xid: number;
  readonly of: Streamed;
}

const [INSERT, UPDATE, DELETE, TRUNCATE, RELATION, TYPE, MESSAGE, ORIGIN] = [...Buffer.from('IUDTRYMO')];
const [START, STOP, COMMIT, ABORT] = [...Buffer.from('SEcA')];
const [BEGIN_1, COMMIT_1] = [...Buffer.from('BC')];
const ROWS: ReadonlySet<number | undefined> = new Set([INSERT, UPDATE, DELETE, TRUNCATE, RELATION, TYPE]);
const PREFIX_AT = 14;
const OURS = [OUTBOX_PREFIX, CONTEXT_PREFIX].map((prefix) => Buffer.from(`${prefix}\0`));

/**
 * Makes of protocol version 2 what version 1 would have said: transactions whole, at their commit, in commit order. What comes between StreamStart and
 * StreamStop is spooled; StreamAbort takes out what it names; StreamCommit brings Begin, the messages, Commit. Everything else passes.
 * PostgreSQL 18 sends StreamAbort in version 1 too, for what it finds rolled back when it runs out of memory.
 *
 * Relations: the server keeps one account of what it has described for transactions that come whole, and one for each that is streamed
 * (`schema_sent` and `streamed_txns` in pgoutput.c). A StreamAbort, of a subtransaction too, closes the account of its transaction, and a
 * StreamCommit adds it to the first one (`cleanup_rel_sync_cache`). So what an abort takes out is described again before it is used, and at a
 * commit the description that came last on the wire is the one that holds.
 */
export class StreamedTransactions {
  readonly #open = new Map<number, Streamed>();
  /** Descriptions for transactions that come whole, with their place in the stream. */
  readonly #known = new Map<number, { readonly place: number; readonly bytes: Buffer }>();
  #block: Block | undefined;
  #place = 0;

  constructor(private readonly options: StreamedOptions) {}

  get inBlock(): boolean {
    return this.#block !== undefined;
  }

  /** Returns a promise only when it has to wait; the message must stay as it is until then. Throws CDC_PROTOCOL, CDC_MESSAGE_UNPLACED, CDC_SPOOL_… */
  accept(message: FramedMessage): Promise<void> | undefined {
    const { bytes, start, end } = message;
    const type = start < end ? bytes[start] : undefined;
    if (this.#block !== undefined) return this.#within(this.#block, type, message);
    switch (type) {
      case START:
        return this.#start(message);
      case STOP:
        throw refused(message, 'a stream is ended that was not begun');
      case COMMIT:
        return this.#commit(message);
      case ABORT:
        return this.#abort(message);
      case RELATION:
        if (end - start > 4) this.#known.set(bytes.readUInt32BE(start + 1), this.#described(message));
        return this.options.put(message);
      default:
        return this.options.put(message);
    }
  }

  #start(message: FramedMessage): undefined {
    const { bytes, start } = message;
    checkLength(message, 6);
    const xid = bytes.readUInt32BE(start + 1);
    const first = bytes[start + 5];
    const known = this.#open.get(xid);
    const { spools } = this.options;
    if (spools === undefined) throw refused(message, 'no stream was asked for');
    if (xid === 0 || first! > 1 || (first === 0) !== (known !== undefined))
      throw refused(message, `stream of transaction ${xid}, ${first === 0 ? 'not begun' : 'begun again'}`);
    const of = known ?? { spools, spool: spools.add(xid), subs: new Map(), order: [], sent: new Map(), loose: false };
    this.#open.set(xid, of);
    this.#block = { xid, of };
  }

  #within(block: Block, type: number | undefined, message: FramedMessage): Promise<void> | undefined {
    const { of } = block;
    if (type === STOP) {
      checkLength(message, 1);
      this.#block = undefined;
      return undefined;
    }
    // Has no xid, and says nothing of the rows.
    if (type === ORIGIN) return undefined;
    const { bytes, start, end } = message;
    if (end - start < 5) throw refused(message, `${5 - end + start} bytes are missing`);
    const xid = bytes.readUInt32BE(start + 1);
    if (xid === 0) throw refused(message, 'no transaction id');
    if (ROWS.has(type)) {
      if (type === RELATION && end - start > 8) of.sent.set(bytes.readUInt32BE(start + 5), ++this.#place);
      this.#row(block, xid);
    } else if (type !== MESSAGE) throw refused(message, 'unknown in a stream');
    // Postgres gives messages the id of the whole transaction, also in a subtransaction (pgoutput_message).
    else if (xid !== block.xid) this.#row(block, xid);
    else if (this.options.outbox && isOurs(message)) of.loose = true;
    return of.spools.append(of.spool, message);
  }

  #row({ xid: top, of }: Block, xid: number): void {
    if (xid !== top && !of.subs.has(xid)) {
      of.subs.set(xid, { at: of.spool.length, loose: of.loose });
      of.order.push(xid);
    }
    of.loose = false;
  }

  /**
   * While a subtransaction is open everything its transaction does belongs to it, or to one inside it: what it has written is the end of the
   * spool. Those inside of it that had not been rolled back before are named first, each by a StreamAbort of its own.
   */
  #abort(message: FramedMessage): Promise<void> | undefined {
    const { bytes, start } = message;
    checkLength(message, 9);
    const top = bytes.readUInt32BE(start + 1);
    const xid = bytes.readUInt32BE(start + 5);
    const of = this.#open.get(top);
    // PostgreSQL 18 also names what it found to be rolled back before it had sent any of it.
    if (of === undefined) return undefined;
    of.sent.clear();
    if (xid === top) {
      this.#open.delete(top);
      return of.spools.remove(of.spool);
    }
    const seen = of.subs.get(xid);
    if (seen?.loose ?? of.loose) throw unplaced(top, xid, message.lsn);
    if (seen === undefined) return undefined;
    for (let last = of.order.pop(); last !== undefined; last = last === xid ? undefined : of.order.pop())
      of.subs.delete(last);
    of.loose = false;
    return of.spools.truncate(of.spool, seen.at);
  }

  #commit(message: FramedMessage): Promise<void> {
    checkLength(message, 30);
    const xid = message.bytes.readUInt32BE(message.start + 1);
    const of = this.#open.get(xid);
    if (of === undefined) throw refused(message, `commit of transaction ${xid}, which is not streamed`);
    return this.#whole(xid, of, message);
  }

  async #whole(xid: number, of: Streamed, message: FramedMessage): Promise<void> {
    // A transaction of which nothing is left does not come at all in version 1.
    if (of.spool.length > 0) await this.#replay(of, message);
    if (this.options.signal.aborted) return;
    this.#open.delete(xid);
    await of.spools.remove(of.spool);
  }

  async #replay(of: Streamed, message: FramedMessage): Promise<void> {
    const { put, signal } = this.options;
    const { lsn } = message;
    await put({ bytes: beginOf(message), start: 0, end: 21, lsn });
    const described = new Map<number, Buffer>();
    const frames = new WalFrames();
    for await (const piece of of.spool.pieces()) {
      frames.feed(piece);
      while (frames.next() !== undefined) {
        if (frames.bytes[frames.start] === RELATION) note(frames, described);
        const asked = put(frames);
        if (asked !== undefined) await asked;
        if (signal.aborted) return;
      }
    }
    await put({ bytes: commitOf(message), start: 0, end: 26, lsn });
    await this.#account(of, described);
  }

  /** As the server sees it, transactions that come whole are described from here on by what came last on the wire. */
  async #account({ sent }: Streamed, described: ReadonlyMap<number, Buffer>): Promise<void> {
    for (const [oid, bytes] of described) {
      const known = this.#known.get(oid);
      const place = sent.get(oid);
      if (place !== undefined && place > (known?.place ?? 0)) this.#known.set(oid, { place, bytes });
      else if (known !== undefined)
        await this.options.put({ bytes: known.bytes, start: 0, end: known.bytes.length, lsn: 0n as Lsn });
    }
  }

  #described({ bytes, start, end }: WalMessage): { readonly place: number; readonly bytes: Buffer } {
    return { place: ++this.#place, bytes: Buffer.from(bytes.subarray(start, end)) };
  }
}

function note({ bytes, start, end }: WalMessage, described: Map<number, Buffer>): void {
  if (end - start > 4) described.set(bytes.readUInt32BE(start + 1), Buffer.from(bytes.subarray(start, end)));
}

/** Begin: commit LSN, time, xid. */
function beginOf({ bytes, start }: WalMessage): Buffer {
  const begin = Buffer.alloc(21);
  begin[0] = BEGIN_1!;
  bytes.copy(begin, 1, start + 6, start + 14);
  bytes.copy(begin, 9, start + 22, start + 30);
  bytes.copy(begin, 17, start + 1, start + 5);
  return begin;
}

/** Commit: the same without the xid. */
function commitOf({ bytes, start, end }: WalMessage): Buffer {
  const commit = Buffer.alloc(26);
  commit[0] = COMMIT_1!;
  bytes.copy(commit, 1, start + 5, end);
  return commit;
}

function isOurs({ bytes, start, end }: WalMessage): boolean {
  const at = start + PREFIX_AT;
  return OURS.some((prefix) => at + prefix.length <= end && prefix.equals(bytes.subarray(at, at + prefix.length)));
}

function unplaced(top: number, xid: number, lsn: Lsn): CaptureError {
  const at = formatLsn(lsn);
  return new CaptureError(
    'CDC_MESSAGE_UNPLACED',
    `subtransaction ${xid} of ${top} was rolled back at ${at}, and PostgreSQL does not tell whether messages before its first row are its own. ` +
      'Nothing of the transaction was published. Capture reconnects, and takes every transaction whole at its commit until it connects anew.',
    { transaction: top, subtransaction: xid, lsn: at },
  );
}

function checkLength(message: WalMessage, wanted: number): void {
  const left = message.end - message.start - wanted;
  if (left !== 0) throw refused(message, left < 0 ? `${-left} bytes are missing` : `${left} bytes too many`);
}

function refused({ bytes, start, end, lsn }: WalMessage, why: string): CaptureError {
  const type = start < end ? String.fromCharCode(bytes[start]!) : 'none';
  return undecodable(type, formatLsn(lsn), new RangeError(why));
}
