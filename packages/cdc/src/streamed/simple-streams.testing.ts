import { Cursor } from '../pgoutput.js';

interface Open {
  messages: { readonly xid: number; readonly bytes: Buffer }[];
}

/** What protocol version 2 means, told with a list for everything, and without messages of the outbox: slow and plain, to hold the other against. */
export class SimpleStreams {
  /** Messages of version 1. */
  readonly said: Buffer[] = [];
  readonly #open = new Map<number, Open>();
  #block: { readonly xid: number; readonly of: Open } | undefined;

  accept(bytes: Buffer): void {
    const type = bytes.length === 0 ? '' : bytes.toString('latin1', 0, 1);
    const body = new Cursor(bytes, 1);
    if (this.#block !== undefined) return this.#within(this.#block, type, body, bytes);
    switch (type) {
      case 'S': {
        const [xid, first] = [body.uint32(), body.uint8()];
        end(body);
        if (xid === 0 || first > 1 || (first === 1) === this.#open.has(xid)) throw new RangeError('start');
        const of = this.#open.get(xid) ?? { messages: [] };
        this.#open.set(xid, of);
        this.#block = { xid, of };
        return;
      }
      case 'E':
        throw new RangeError('stop');
      case 'A':
        return this.#abort(body.uint32(), body.uint32(), body);
      case 'c':
        return this.#commit(body, bytes);
      default:
        this.said.push(bytes);
    }
  }

  #within({ of }: { readonly of: Open }, type: string, body: Cursor, bytes: Buffer): void {
    if (type === 'E') {
      end(body);
      this.#block = undefined;
    } else if (type !== 'O') {
      if (type === '' || !'IUDTRYM'.includes(type)) throw new RangeError('type');
      const xid = body.uint32();
      if (xid === 0) throw new RangeError('xid');
      of.messages.push({ xid, bytes: Buffer.concat([bytes.subarray(0, 1), bytes.subarray(5)]) });
    }
  }

  #abort(top: number, xid: number, body: Cursor): void {
    end(body);
    const of = this.#open.get(top);
    if (of === undefined) return;
    if (top === xid) this.#open.delete(top);
    const from = of.messages.findIndex((each) => each.xid === xid);
    if (from >= 0) of.messages.length = from;
  }

  #commit(body: Cursor, bytes: Buffer): void {
    const xid = body.uint32();
    body.bytes(25);
    end(body);
    const of = this.#open.get(xid);
    if (of === undefined) throw new RangeError('commit');
    this.#open.delete(xid);
    if (of.messages.length === 0) return;
    const [lsn, time] = [bytes.subarray(6, 14), bytes.subarray(22, 30)];
    this.said.push(Buffer.concat([Buffer.from('B'), lsn, time, bytes.subarray(1, 5)]));
    this.said.push(...of.messages.map((each) => each.bytes));
    this.said.push(Buffer.concat([Buffer.from('C'), bytes.subarray(5)]));
  }
}

function end(body: Cursor): void {
  if (body.left !== 0) throw new RangeError(`${body.left} bytes too many`);
}
