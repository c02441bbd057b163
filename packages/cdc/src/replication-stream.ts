import type { Clock } from '@headwater/core';
import type { Client } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import type { AckPolicy } from './ack-policy.js';
import { CaptureError } from './cdc.errors.js';
import { formatLsn, parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { quoteName, quoteText, sessionConfig } from './postgres-session.js';

/** What the server sent, in order: the bytes of one pgoutput message, or how far it has read the WAL. */
export type StreamItem = { readonly bytes: Buffer; readonly lsn: string } | { readonly keepalive: Lsn };

export interface StreamOptions {
  readonly connectionString: string;
  readonly name: string;
  readonly slot: string;
  readonly publication: string;
  readonly maxQueuedBytes: number;
  readonly inboundTimeoutMs: number;
  readonly clock: Clock;
}

/** What the pump reads from: what the server sent, in its order, until the connection is lost. */
export interface WalStream {
  /** The next item, or undefined when nothing has arrived. Throws when the connection was lost. */
  shift(): StreamItem | undefined;
  /** Resolves when `shift` may bring something, or throw, and at `wake()`. */
  arrival(): Promise<void>;
  wake(): void;
  /** Tells the server what is durable: the raw end LSN, as write, flush and apply position. */
  sendStatus(): void;
}

const STATUS_INTERVAL_MS = 1_000;
const CLOSE_TIMEOUT_MS = 3_000;

/**
 * One connection to the slot; never reused. Queues what arrives, pauses the socket when too much is queued (P8), and tells the
 * server every second what is durable, whatever its reader is doing.
 */
export class ReplicationStream implements WalStream {
  readonly #service: LogicalReplicationService;
  readonly #queue: StreamItem[] = [];
  #head = 0;
  #queuedBytes = 0;
  #paused = false;
  #lastInbound: number;
  #pinged = false;
  #failure: unknown;
  #ended: Promise<void> = Promise.resolve();
  readonly #closing = new AbortController();
  #wake: () => void = () => {};

  constructor(
    private readonly options: StreamOptions,
    private readonly ack: AckPolicy,
  ) {
    this.#lastInbound = options.clock.elapsed();
    this.#service = new LogicalReplicationService(sessionConfig(options.connectionString, options.name), {
      acknowledge: { auto: false, timeoutSeconds: 0 },
    });
  }

  /** Resolves when the server streams. Rejects with its error, for example when another connection holds the slot. */
  async start(): Promise<void> {
    const service = this.#service;
    service.on('data', (lsn: string, bytes: Buffer) => this.#push({ bytes, lsn }, bytes.length + 64));
    service.on('heartbeat', (lsn: string, _timestamp: number, replyNow: boolean) => {
      this.#push({ keepalive: parseLsn(lsn) }, 64);
      if (replyNow) this.sendStatus();
    });
    service.on('error', (error: unknown) => this.#fail(error));
    await new Promise<void>((resolve, reject) => {
      service.on('start', () => resolve());
      // A killed walsender ends this promise and emits nothing.
      this.#ended = service.subscribe(new RawPgoutput(this.options), this.options.slot, '0/00000000').then(
        () => this.#fail(new CaptureError('CDC_STREAM_LOST', 'the server ended the stream. Capture reconnects.')),
        (error: unknown) => {
          this.#fail(error);
          reject(error);
        },
      );
    }).catch(async (error: unknown) => {
      await this.close();
      throw error;
    });
    void this.#tell();
    this.sendStatus();
  }

  /** The next item, or undefined when nothing has arrived. Throws when the connection was lost. */
  shift(): StreamItem | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const item = this.#queue[this.#head];
    if (item === undefined) return undefined;
    this.#head += 1;
    this.#queuedBytes -= 'bytes' in item ? item.bytes.length + 64 : 64;
    if (this.#head === this.#queue.length || this.#head > 8_192) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
    if (this.#paused && this.#queuedBytes < this.options.maxQueuedBytes / 2) this.#setPaused(false);
    return item;
  }

  /** Resolves when `shift` may bring something, or throw. */
  async arrival(): Promise<void> {
    if (this.#failure !== undefined || this.#head < this.#queue.length) return;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  wake(): void {
    const wake = this.#wake;
    this.#wake = () => {};
    wake();
  }

  /** Tells the server what is durable: the raw end LSN, as write, flush and apply position. */
  sendStatus(replyRequested = false): void {
    const connection = rawConnection(this.#service);
    if (connection === null || this.#failure !== undefined) return;
    const status = Buffer.alloc(34);
    status.writeUInt8(0x72, 0);
    for (const at of [1, 9, 17]) status.writeBigUInt64BE(this.ack.lsn, at);
    status.writeBigInt64BE((BigInt(this.options.clock.now()) - 946_684_800_000n) * 1_000n, 25);
    status.writeUInt8(replyRequested ? 1 : 0, 33);
    connection.sendCopyFromChunk(status);
  }

  /** Sends a last status and closes. Afterwards the server has released the slot, or the socket is destroyed. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.sendStatus();
    this.#failure ??= new CaptureError('CDC_STREAM_LOST', 'the stream was closed.');
    this.#queue.length = 0;
    this.#head = 0;
    this.#setPaused(false);
    const connection = rawConnection(this.#service);
    const stop = this.#service.destroy().then(
      () => undefined,
      () => undefined,
    );
    // A half-open socket never answers the farewell.
    const force = setTimeout(() => connection?.stream.destroy(), CLOSE_TIMEOUT_MS);
    await Promise.all([stop, this.#ended]);
    clearTimeout(force);
  }

  #push(item: StreamItem, bytes: number): void {
    this.#lastInbound = this.options.clock.elapsed();
    this.#pinged = false;
    if (this.#failure !== undefined) return;
    this.#queue.push(item);
    this.#queuedBytes += bytes;
    if (!this.#paused && this.#queuedBytes > this.options.maxQueuedBytes) this.#setPaused(true);
    this.wake();
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.wake();
  }

  async #tell(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.options.clock.wait(STATUS_INTERVAL_MS, signal);
      if (!signal.aborted) this.#tick();
    }
  }

  #tick(): void {
    const silentMs = Math.round(this.options.clock.elapsed() - this.#lastInbound);
    // While paused the silence is our own.
    if (this.#paused) this.#lastInbound = this.options.clock.elapsed();
    else if (silentMs > this.options.inboundTimeoutMs) {
      this.#fail(
        new CaptureError('CDC_STREAM_LOST', `the server was silent for ${silentMs} ms. Capture reconnects.`, {
          silentMs,
          acknowledged: formatLsn(this.ack.lsn),
        }),
      );
      return;
    }
    const ping = !this.#pinged && silentMs > this.options.inboundTimeoutMs / 3;
    if (ping) this.#pinged = true;
    this.sendStatus(ping);
  }

  #setPaused(paused: boolean): void {
    this.#paused = paused;
    const stream = rawConnection(this.#service)?.stream;
    if (paused) stream?.pause();
    else stream?.resume();
  }
}

interface RawConnection {
  sendCopyFromChunk(chunk: Buffer): void;
  readonly stream: { pause(): void; resume(): void; destroy(): void };
}

/** The library keeps its connection private, and its own acknowledge() confirms one byte too much. */
function rawConnection(service: LogicalReplicationService): RawConnection | null {
  return (service as unknown as { _connection: RawConnection | null })._connection;
}

/** Hands the bytes through undecoded. */
class RawPgoutput {
  constructor(readonly options: StreamOptions) {}

  get name(): string {
    return 'pgoutput';
  }

  async start(client: Client, slot: string, lsn: string): Promise<unknown> {
    const { publication } = this.options;
    return client.query(
      `START_REPLICATION SLOT ${quoteName(slot)} LOGICAL ${lsn} (proto_version '1', publication_names ${quoteText(quoteName(publication))}, messages 'true')`,
    );
  }

  /** Copies: the parser of pg uses its buffer again. Must never throw. */
  parse(bytes: Buffer): Buffer {
    return Buffer.from(bytes);
  }
}
