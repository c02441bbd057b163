import type { AckPolicy } from '../ack-policy.js';
import { CaptureError } from '../cdc.errors.js';
import type { Lsn } from '../lsn.js';
import type { SimulatedSourceOptions } from './simulated-source.testing.js';
import type { Walsender } from './walsender.testing.js';

const STATUS_INTERVAL_MS = 1_000;

/** A replication stream over a simulated wire: the bytes as they come, cut anywhere. */
export class SimulatedStream {
  readonly #queue: Buffer[] = [];
  readonly #closing = new AbortController();
  #rest: Buffer = Buffer.alloc(0);
  #failure: unknown;
  #lastInbound: number;
  #received: Lsn;
  #wake: () => void = () => {};
  readonly lost: Promise<never>;
  #lose: (error: unknown) => void = () => {};

  constructor(
    private readonly walsender: Walsender,
    private readonly ack: AckPolicy,
    private readonly of: SimulatedSourceOptions,
  ) {
    this.lost = new Promise<never>((_, reject) => (this.#lose = reject));
    this.lost.catch(() => {});
    this.#lastInbound = of.clock.elapsed();
    this.#received = ack.lsn;
    walsender.start({ data: (bytes) => this.#data(bytes), closed: (error) => this.#fail(error) });
    void this.#tell();
    this.sendStatus();
  }

  shift(): Buffer | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    return this.#queue.shift();
  }

  async arrival(): Promise<void> {
    if (this.#failure !== undefined || this.#queue.length > 0) return;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  wake(): void {
    this.#wake();
  }

  sendStatus(): void {
    if (this.#failure !== undefined || this.#closing.signal.aborted) return;
    this.walsender.status(this.of.onStatus(this.ack.lsn, this.#received), false);
  }

  control(frame: Buffer): void {
    this.#fail(new CaptureError('CDC_STREAM_LOST', `the server sent ${frame.toString('latin1', 0, 1)}.`));
  }

  wholeNext(): void {}

  async close(): Promise<void> {
    this.sendStatus();
    this.#closing.abort();
    this.#fail(new CaptureError('CDC_STREAM_LOST', 'the stream was closed.'));
    await this.of.clock.wait(0);
    this.walsender.hangUp();
  }

  #data(bytes: Buffer): void {
    this.#lastInbound = this.of.clock.elapsed();
    this.#queue.push(bytes);
    this.#note(bytes);
    this.#wake();
  }

  /** How far the server has come, as a client sees it that believes whatever arrives. */
  #note(bytes: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= 5 && this.#rest.length > this.#rest.readUInt32BE(1)) {
      const lsn = this.#rest.readBigUInt64BE(6) as Lsn;
      this.#rest = this.#rest.subarray(1 + this.#rest.readUInt32BE(1));
      if (lsn > this.#received) this.of.received((this.#received = lsn));
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#lose(this.#failure);
    this.#wake();
  }

  async #tell(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.of.clock.wait(STATUS_INTERVAL_MS, signal);
      if (signal.aborted) return;
      if (this.of.clock.elapsed() - this.#lastInbound > this.of.options.inboundTimeoutMs)
        this.#fail(new CaptureError('CDC_STREAM_LOST', 'the server was silent.'));
      else this.sendStatus();
    }
  }
}
