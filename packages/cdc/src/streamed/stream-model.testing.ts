import type { Random } from '@headwater/testing';
import { begin, commit, cstring, insert, logical, relation, truncate } from '../pgoutput.testing.js';
import { stream } from './stream-bytes.testing.js';

type Change =
  | { readonly kind: 'row' | 'truncate'; readonly oid: number; readonly version: number; readonly text: string }
  | { readonly kind: 'message'; readonly text: string }
  /** Of a table that is not published: counts, and is not sent. */
  | { readonly kind: 'hidden' };

interface Sub {
  readonly xid: number;
  readonly parent: Sub | undefined;
  /** Changes of it were decoded for a stream. */
  streamed: boolean;
}

type Placed = Change & { readonly sub: Sub };

class Transaction {
  readonly all: Placed[] = [];
  unsent: Placed[] = [];
  readonly subs: Sub[];
  /** The open ones, innermost last; without xid until they write. */
  readonly stack: { sub: Sub | undefined }[] = [];
  readonly sent = new Map<number, { readonly version: number; readonly place: number }>();
  isStreamed = false;

  constructor(readonly top: Sub) {
    this.subs = [top];
  }
}

const TABLES = [10, 11, 12];

/**
 * A server that decodes random transactions as PostgreSQL does: subtransactions get their ids when they write, descriptions are sent by its accounts
 * (`schema_sent`, `streamed_txns`), messages carry the id of the whole transaction. Tells what it sends, and what version 1 would have said.
 */
export class StreamingServer {
  /** pgoutput messages of version 2, in the order of the wire. */
  readonly wire: Buffer[] = [];
  /** What is to come of them, as `Reader` tells it. */
  readonly due: string[] = [];
  readonly #open: Transaction[] = [];
  readonly #versions = new Map(TABLES.map((oid) => [oid, 1]));
  readonly #plain = new Map<number, { readonly version: number; readonly place: number }>();
  #xid = 700;
  #lsn = 1_000n;
  #texts = 0;

  constructor(
    private readonly random: Random,
    private readonly messages: boolean,
  ) {}

  step(): void {
    const { random } = this;
    if (this.#open.length === 0 || (this.#open.length < 4 && random.chance(0.05))) {
      this.#open.push(new Transaction(this.#newSub(undefined)));
      return;
    }
    const of = random.pick(this.#open);
    const dice = random.fraction();
    if (dice < 0.5) this.#write(of);
    else if (dice < 0.62) of.stack.push({ sub: undefined });
    else if (dice < 0.72) of.stack.pop();
    else if (dice < 0.8) this.#rollBackTo(of, random.below(of.stack.length + 1));
    else if (dice < 0.9) this.#stream(of);
    else if (dice < 0.92) this.#alter();
    else if (dice < 0.97) this.#commit(of);
    else this.#rollBack(of);
  }

  /** What is open by then is left open. */
  finish(): void {
    for (const of of this.#open.slice()) if (this.random.chance(0.7)) this.#commit(of);
  }

  #write(of: Transaction): void {
    const { random } = this;
    const oid = random.pick(TABLES);
    const version = this.#versions.get(oid)!;
    const text = `${++this.#texts}${'x'.repeat(random.below(40))}`;
    const dice = random.fraction();
    const change: Change =
      this.messages && dice < 0.15
        ? { kind: 'message', text }
        : dice < 0.3
          ? { kind: 'hidden' }
          : { kind: dice < 0.35 ? 'truncate' : 'row', oid, version, text };
    const placed = { ...change, sub: this.#writing(of) };
    of.all.push(placed);
    of.unsent.push(placed);
  }

  /** The innermost subtransaction, with ids for all that have none yet, outer ones first. */
  #writing(of: Transaction): Sub {
    let parent = of.top;
    for (const level of of.stack) {
      level.sub ??= this.#newSub(parent);
      if (!of.subs.includes(level.sub)) of.subs.push(level.sub);
      parent = level.sub;
    }
    return parent;
  }

  #newSub(parent: Sub | undefined): Sub {
    return { xid: ++this.#xid, parent, streamed: false };
  }

  #rollBackTo(of: Transaction, depth: number): void {
    const level = of.stack[depth];
    if (level === undefined) return;
    of.stack.length = depth;
    if (level.sub !== undefined) this.#abort(of, level.sub);
  }

  /** Those inside first, as DecodeAbort has it. */
  #abort(of: Transaction, sub: Sub): void {
    const gone = of.subs.filter((each) => each === sub || isInside(each, sub)).toSorted((a, b) => b.xid - a.xid);
    for (const each of gone) {
      if (each.streamed || this.#looksUp()) {
        this.wire.push(stream.abort(of.top.xid, each.xid));
        of.sent.clear();
      }
      of.subs.splice(of.subs.indexOf(each), 1);
    }
    const kept = (placed: Placed) => !gone.includes(placed.sub);
    of.unsent = of.unsent.filter(kept);
    of.all.splice(0, of.all.length, ...of.all.filter(kept));
  }

  /** PostgreSQL 18 marks what it finds rolled back before it has sent it, and then tells. */
  #looksUp(): boolean {
    return this.random.chance(0.1);
  }

  #stream(of: Transaction): void {
    const { xid } = of.top;
    this.wire.push(stream.start(xid, !of.isStreamed));
    of.isStreamed = true;
    of.top.streamed = true;
    for (const change of of.unsent) {
      change.sub.streamed = true;
      const id = change.sub.xid;
      if (change.kind === 'message')
        this.wire.push(stream.within(xid, logical(true, this.#lsn++, 'headwater', change.text)));
      else if (change.kind !== 'hidden') {
        if (of.sent.get(change.oid)?.version !== change.version) {
          this.wire.push(stream.within(id, description(change)));
          of.sent.set(change.oid, { version: change.version, place: this.wire.length });
        }
        this.wire.push(stream.within(id, bytesOf(change)));
      }
    }
    of.unsent = [];
    this.wire.push(stream.stop());
  }

  /** A change of a table, or of its publication, that is committed now. */
  #alter(): void {
    const oid = this.random.pick(TABLES);
    this.#versions.set(oid, this.#versions.get(oid)! + 1);
    this.#plain.delete(oid);
    for (const { sent } of this.#open) sent.delete(oid);
  }

  #commit(of: Transaction): void {
    const [commitLsn, endLsn, micros] = [++this.#lsn, ++this.#lsn, BigInt(this.random.below(1e9))];
    const { xid } = of.top;
    const told = of.all.filter(({ kind }) => kind !== 'hidden');
    if (of.isStreamed) {
      if (of.unsent.length > 0) this.#stream(of);
      this.wire.push(stream.commit(xid, commitLsn, endLsn, micros));
      for (const [oid, sent] of of.sent)
        if (sent.place > (this.#plain.get(oid)?.place ?? 0)) this.#plain.set(oid, sent);
    } else if (told.length > 0) {
      this.wire.push(begin(commitLsn, micros, xid));
      for (const change of told) this.#whole(change);
      this.wire.push(commit(commitLsn, endLsn, micros));
    }
    if (told.length > 0)
      this.due.push(
        `begin ${commitLsn} ${micros} ${xid}`,
        ...told.map(lineOf),
        `commit ${commitLsn} ${endLsn} ${micros}`,
      );
    this.#over(of);
  }

  #whole(change: Placed): void {
    if (change.kind === 'hidden') return;
    if (change.kind === 'message') return void this.wire.push(logical(true, this.#lsn++, 'headwater', change.text));
    const { oid, version } = change;
    if (this.#plain.get(oid)?.version !== version) {
      this.wire.push(description(change));
      this.#plain.set(oid, { version, place: this.wire.length });
    }
    this.wire.push(bytesOf(change));
  }

  #rollBack(of: Transaction): void {
    for (const sub of of.subs.toReversed())
      if (sub.streamed || this.#looksUp()) this.wire.push(stream.abort(of.top.xid, sub.xid));
    this.#over(of);
  }

  #over(of: Transaction): void {
    this.#open.splice(this.#open.indexOf(of), 1);
  }
}

type Told = Extract<Change, { readonly oid: number }>;

/** Its columns tell the version. */
function description({ oid, version }: Told): Buffer {
  const columns = Array.from({ length: version }, (_, i) => ({ name: `c${i}`, typeOid: 25, key: i === 0 }));
  return relation({ oid, name: `t${oid}`, identity: 'd', columns });
}

function bytesOf({ kind, oid, text }: Told): Buffer {
  return kind === 'truncate' ? truncate(oid) : insert(oid, [text]);
}

function lineOf(change: Change): string {
  if (change.kind === 'hidden') return '';
  if (change.kind === 'message') return `message ${change.text}`;
  return `${bytesOf(change).toString('hex')} as ${change.oid} version ${change.version}`;
}

function isInside(sub: Sub, of: Sub): boolean {
  return sub.parent !== undefined && (sub.parent === of || isInside(sub.parent, of));
}

const COLUMNS_AT = (name: string) => 5 + cstring('public').length + cstring(name).length + 1;

/** Reads messages of version 1 and tells what they mean, each row with the description that holds for it. */
export class Reader {
  readonly lines: string[] = [];
  readonly #versions = new Map<number, number>();

  read(bytes: Buffer): void {
    switch (String.fromCharCode(bytes[0]!)) {
      case 'B':
        this.lines.push(`begin ${bytes.readBigUInt64BE(1)} ${bytes.readBigInt64BE(9)} ${bytes.readUInt32BE(17)}`);
        return;
      case 'C': {
        const [lsn, end, micros] = [bytes.readBigUInt64BE(2), bytes.readBigUInt64BE(10), bytes.readBigInt64BE(18)];
        this.lines.push(`commit ${lsn} ${end} ${micros}`);
        return;
      }
      case 'R': {
        const oid = bytes.readUInt32BE(1);
        this.#versions.set(oid, bytes.readUInt16BE(COLUMNS_AT(`t${oid}`)));
        return;
      }
      case 'M':
        this.lines.push(`message ${bytes.toString('latin1', 10 + cstring('headwater').length + 4)}`);
        return;
      default: {
        const oid = bytes.readUInt32BE(bytes[0] === 0x54 ? 6 : 1);
        this.lines.push(`${bytes.toString('hex')} as ${oid} version ${this.#versions.get(oid) ?? 'unknown'}`);
      }
    }
  }
}
