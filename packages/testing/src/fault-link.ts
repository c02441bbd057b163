import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * What happens to one frame.
 * drop: swallowed, the other side waits. close: swallowed, and the connection is cut; reset: the same with a TCP reset for the client.
 * mute: swallowed, as is everything after it in both directions, while the connection stays (half-open).
 * delay: late by `ms`, as is everything behind it in its direction. duplicate: sent twice. flip: one bit of `byte` is wrong.
 * rewrite: what `rewrite` makes of it is sent instead.
 * hold: kept back, with everything behind it, until `release()`. keep: taken aside until `release()`; what came behind it overtakes it.
 * A request held or kept outlives its client: it reaches the server at `release()`, however much has happened there since.
 */
export interface FrameFault {
  readonly act: 'drop' | 'close' | 'reset' | 'mute' | 'delay' | 'duplicate' | 'flip' | 'rewrite' | 'hold' | 'keep';
  readonly ms?: number;
  /** Which byte of the frame, counted from its end when negative. Default -1. */
  readonly byte?: number;
  /** Gets the whole frame, its length included, and returns a whole frame. */
  readonly rewrite?: (frame: Buffer) => Buffer;
  /** Called when it strikes: for a response, after the server has done the request. The frame waits for the promise. */
  readonly onStrike?: () => unknown;
}

export type Side = 'client' | 'server';

/** A frame that `hold` or `keep` took. `pass` lets it go; it resolves when the server has answered, or cannot any more. */
export interface HeldFrame<Struck> {
  readonly struck: Struck;
  readonly pass: () => Promise<void>;
}

/** One proxied connection. Frames of a direction leave in the order in which they came, unless a fault says otherwise. */
export class FaultLink<Struck extends FrameFault> {
  readonly client: Socket;
  readonly server: Socket;
  readonly #relay: LinkOwner<Struck>;
  readonly #tails: Record<Side, Promise<unknown>> = { client: Promise.resolve(), server: Promise.resolve() };
  readonly #unanswered = new Map<number, () => void>();
  #late = 0;
  #silent = false;

  constructor(client: Socket, server: Socket, relay: LinkOwner<Struck>) {
    this.client = client;
    this.server = server;
    this.#relay = relay;
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on('error', () => this.cut());
    }
    // Ended, not destroyed: what the other side has already sent still arrives.
    client.on('close', () => this.#clientGone());
    server.on('close', () => {
      for (const answered of this.#unanswered.values()) answered();
      if (!this.#silent) client.end();
      relay.over(this);
    });
  }

  /** Sends a frame on, or does what the fault says. With `id`, `answered(id)` tells that the server has answered it. */
  pass(to: Side, frame: Buffer, struck?: Struck, id?: number): void {
    this.#tails[to] = this.#tails[to].then(() => this.#deliver(to, frame, struck, id));
  }

  answered(id: number): void {
    this.#unanswered.get(id)?.();
  }

  /** Ends both connections; that to the server only after what is held for it has been let go. */
  cut(): void {
    this.client.destroy();
    if (this.#late === 0) this.server.destroy();
  }

  destroy(): void {
    this.client.destroy();
    this.server.destroy();
  }

  async #deliver(to: Side, frame: Buffer, struck: Struck | undefined, id: number | undefined): Promise<void> {
    if (this.#silent) return;
    if (struck === undefined) return this.#write(to, frame);
    this.#relay.strike(struck);
    // Not awaited without need: whoever awaits the strike finds it done.
    if (struck.onStrike) await struck.onStrike();
    switch (struck.act) {
      case 'drop':
        return;
      case 'close':
        this.#silent = true;
        return this.cut();
      case 'reset':
        this.#silent = true;
        this.client.resetAndDestroy();
        return this.cut();
      case 'mute':
        this.#silent = true;
        return;
      case 'keep':
        return void this.#take(to, frame, struck, id);
      case 'hold':
        return this.#take(to, frame, struck, id);
      case 'delay':
        await delay(struck.ms ?? 0);
        return this.#write(to, frame);
      case 'duplicate':
        this.#write(to, frame);
        return this.#write(to, frame);
      case 'flip':
        return this.#write(to, flipped(frame, struck.byte ?? -1));
      case 'rewrite':
        return this.#write(to, struck.rewrite?.(frame) ?? frame);
    }
  }

  /** Resolves when the frame has been let go. */
  #take(to: Side, frame: Buffer, struck: Struck, id: number | undefined): Promise<void> {
    // A response outlives nobody: the server must learn that its client is gone.
    const request = to === 'server';
    if (request) this.#late++;
    return new Promise((gone) => {
      const pass = async (): Promise<void> => {
        const answer = request && id !== undefined ? this.#answer(id) : undefined;
        this.#write(to, frame);
        gone();
        await answer;
        if (request) this.#late--;
        if (this.client.destroyed) this.#clientGone();
      };
      this.#relay.hold({ struck, pass });
    });
  }

  #answer(id: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.server.destroyed) resolve();
      this.#unanswered.set(id, () => {
        this.#unanswered.delete(id);
        resolve();
      });
    });
  }

  #clientGone(): void {
    if (this.#late > 0) return;
    void this.#tails.server.then(() => this.server.end());
  }

  #write(to: Side, frame: Buffer): void {
    if (this[to].writable) this[to].write(frame);
  }
}

/** What a link tells the proxy it belongs to. */
export interface LinkOwner<Struck extends FrameFault> {
  strike(struck: Struck): void;
  hold(held: HeldFrame<Struck>): void;
  over(link: FaultLink<Struck>): void;
}

function flipped(frame: Buffer, at: number): Buffer {
  const copy = Buffer.from(frame);
  const index = at < 0 ? copy.length + at : at;
  copy.writeUInt8(copy.readUInt8(index) ^ 1, index);
  return copy;
}
