import type { Socket } from 'node:net';
import type { Clock } from '@headwater/core';
import type { Client } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import type { AckPolicy } from './ack-policy.js';
import type { CaptureLogger } from './capture.options.js';
import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import { Pace } from './pace.js';
import { quoteName, quoteText, sessionConfig } from './postgres-session.js';
import { WalFrames } from './wal-frames.js';

export interface StreamOptions {
  readonly connectionString: string;
  readonly name: string;
  readonly slot: string;
  readonly publication: string;
  readonly streaming: 'off' | 'on';
  readonly maxQueuedBytes: number;
  readonly inboundTimeoutMs: number;
  readonly clock: Clock;
  readonly logger: CaptureLogger;
}

/** What the pump reads from: the bytes the server sent since it streams, in its order, until the connection is lost. */
export interface WalStream {
  /** The next bytes, cut anywhere; undefined when nothing has arrived. Throws when the connection was lost. */
  shift(): Buffer | undefined;
  /** Resolves when `shift` may bring something, or throw, and at `wake()`. */
  arrival(): Promise<void>;
  wake(): void;
  /** Tells the server what is durable: the raw end LSN, as write, flush and apply position. */
  sendStatus(): void;
  /** A whole frame among the bytes that is not replication data, as the error or the end of the stream: for who owns the connection. */
  control(frame: Buffer): void;
  /** The connection after this one is to bring every transaction whole, at its commit. */
  wholeNext(): void;
}

/** Half of what a keepalive that asks for a reply may wait for it, also while nobody reads the stream. */
const STATUS_INTERVAL_MS = 500;
/** A timer that comes later than this tells that something held the event loop. */
const STALL_MS = 2_000;
const CLOSE_TIMEOUT_MS = 3_000;

/** CopyBothResponse: from here on the server streams. */
const COPY_BOTH = 0x57;

/**
 * One connection to the slot; never reused. The library carries the connection; once the server streams, the socket's bytes are queued here
 * as they come. Pauses the socket when too much is queued (P8), rests it while a backlog is read, and tells the server twice a second what
 * is durable, whatever its reader is doing.
 */
export class ReplicationStream implements WalStream {
  readonly #service: LogicalReplicationService;
  readonly #queue: Buffer[] = [];
  #queuedBytes = 0;
  #paused = false;
  #resting = false;
  readonly #pace = new Pace();
  #taken: TakenOver | undefined;
  #lastInbound: number;
  #pinged = false;
  #failure: unknown;
  #ended: Promise<void> = Promise.resolve();
  readonly #closing = new AbortController();
  #wake: () => void = () => {};
  /** Rejects with the reason when the connection is lost, also while nobody reads the stream. Never settles otherwise. */
  readonly lost: Promise<never>;
  #lose: (error: unknown) => void = () => {};

  constructor(
    private readonly options: StreamOptions,
    private readonly ack: AckPolicy,
    private readonly onWholeNext: () => void,
  ) {
    this.lost = new Promise<never>((_, reject) => (this.#lose = reject));
    // Whoever waits for it is told.
    this.lost.catch(() => {});
    this.#lastInbound = options.clock.elapsed();
    this.#service = new LogicalReplicationService(sessionConfig(options.connectionString, options.name), {
      acknowledge: { auto: false, timeoutSeconds: 0 },
    });
  }

  /** Resolves when the server streams. Rejects with its error, for example when another connection holds the slot. */
  async start(): Promise<void> {
    const service = this.#service;
    service.on('error', (error: unknown) => this.#fail(error));
    await new Promise<void>((resolve, reject) => {
      service.on('start', () => resolve());
      // A killed walsender ends this promise and emits nothing.
      this.#ended = service.subscribe(this.#plugin(), this.options.slot, '0/00000000').then(
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

  shift(): Buffer | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const bytes = this.#queue.shift();
    if (bytes === undefined) return undefined;
    this.#queuedBytes -= bytes.length;
    if (this.#paused && this.#queuedBytes < this.options.maxQueuedBytes / 2) {
      this.#paused = false;
      this.#flow();
    }
    return bytes;
  }

  /** Resolves when `shift` may bring something, or throw. */
  async arrival(): Promise<void> {
    if (this.#failure !== undefined || this.#queue.length > 0) return;
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

  control(frame: Buffer): void {
    this.#taken?.forward(frame);
  }

  wholeNext(): void {
    this.onWholeNext();
  }

  /**
   * Sends a last status and closes. Afterwards the server has taken the status and released the slot, or it was silent for three seconds and
   * the socket is destroyed. What still comes is read and dropped: a socket closed with bytes unread is reset, and the server then
   * loses the status on its way (RFC 2525, 2.17).
   */
  async close(): Promise<void> {
    this.#closing.abort();
    this.sendStatus();
    const listens = this.#failure === undefined;
    this.#failure ??= new CaptureError('CDC_STREAM_LOST', 'the stream was closed.');
    this.#queue.length = 0;
    this.#paused = false;
    this.#resting = false;
    this.#flow();
    const connection = rawConnection(this.#service);
    // The library's farewell destroys the socket of a connection that streams. A half-open one never answers ours.
    const force = setTimeout(() => connection?.stream.destroy(), CLOSE_TIMEOUT_MS);
    if (listens) {
      connection?.end();
      await this.#ended;
    }
    await Promise.all([this.#service.destroy().catch(() => {}), this.#ended]);
    clearTimeout(force);
  }

  /** The start command, and the socket's bytes from its answer on. */
  #plugin() {
    const protocol = this.options.streaming === 'on' ? `proto_version '2', streaming 'on'` : `proto_version '1'`;
    const how = `${protocol}, publication_names ${quoteText(quoteName(this.options.publication))}, messages 'true'`;
    return {
      name: 'pgoutput',
      options: {},
      parse: (bytes: Buffer) => bytes,
      start: async (client: Client, slot: string, lsn: string): Promise<unknown> => {
        this.#taken = takeOver(
          client,
          (bytes) => this.#push(bytes),
          (error) => this.#fail(error),
        );
        return client.query(`START_REPLICATION SLOT ${quoteName(slot)} LOGICAL ${lsn} (${how})`);
      },
    };
  }

  #push(bytes: Buffer): void {
    const now = this.options.clock.elapsed();
    this.#lastInbound = now;
    this.#pinged = false;
    if (this.#failure !== undefined || bytes.length === 0) return;
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    if (this.#queuedBytes > this.options.maxQueuedBytes) this.#paused = true;
    const restMs = this.#taken?.isTcp === true ? this.#pace.afterRead(bytes.length, now) : 0;
    if (restMs > 0) void this.#rest(restMs);
    else this.#flow();
    this.wake();
  }

  async #rest(ms: number): Promise<void> {
    this.#resting = true;
    this.#flow();
    await this.options.clock.wait(ms, this.#closing.signal);
    this.#resting = false;
    this.#flow();
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#lose(this.#failure);
    this.wake();
  }

  async #tell(): Promise<void> {
    const { signal } = this.#closing;
    const { clock, logger, name } = this.options;
    while (!signal.aborted) {
      const before = clock.elapsed();
      await clock.wait(STATUS_INTERVAL_MS, signal);
      if (signal.aborted) return;
      const stalledMs = Math.round(clock.elapsed() - before - STATUS_INTERVAL_MS);
      if (stalledMs > STALL_MS)
        logger.warn(
          `capture ${name}: the event loop stood still for ${stalledMs} ms, and the server was told nothing meanwhile. ` +
            'Find what blocks this process; beyond wal_sender_timeout the server ends the stream.',
        );
      this.#tick();
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

  #flow(): void {
    const stream = rawConnection(this.#service)?.stream;
    if (this.#paused || this.#resting) stream?.pause();
    else if (stream?.isPaused() === true) stream.resume();
  }
}

interface RawConnection {
  sendCopyFromChunk(chunk: Buffer): void;
  /** Says that nothing more comes, behind what was sent. */
  end(): void;
  readonly stream: Socket;
}

/** The library keeps its connection private, and its own acknowledge() confirms one byte too much. */
function rawConnection(service: LogicalReplicationService): RawConnection | null {
  return (service as unknown as { _connection: RawConnection | null })._connection;
}

interface TakenOver {
  readonly isTcp: boolean;
  /** Hands a frame to the client's own parser. */
  forward(frame: Buffer): void;
}

/**
 * Stands between the socket and the client's parser from now on, while the line is quiet: that parser works frame by frame and keeps what
 * straddles reads, so it can only be left at the end of a frame. What comes behind CopyBothResponse goes to `take`.
 */
function takeOver(client: Client, take: (bytes: Buffer) => void, fail: (error: unknown) => void): TakenOver {
  const { stream } = (client as unknown as { connection: RawConnection }).connection;
  const parsers = stream.listeners('data') as ((bytes: Buffer) => void)[];
  stream.removeAllListeners('data');
  // Copied: a parser may keep what it is given, the frame's buffer is used again.
  const forward = (frame: Buffer) => parsers.forEach((parse) => parse.call(stream, Buffer.from(frame)));
  const frames = new WalFrames();
  let streaming = false;
  stream.on('data', (bytes: Buffer) => {
    if (streaming) return take(bytes);
    try {
      frames.feed(bytes);
      while (!streaming && frames.next() !== undefined) {
        streaming = frames.bytes[frames.start] === COPY_BOTH;
        forward(frames.bytes.subarray(frames.start, frames.end));
      }
      if (streaming) take(frames.rest());
    } catch (error) {
      // Thrown from here it would end the process.
      fail(error);
    }
  });
  return { isTcp: stream.remoteAddress !== undefined, forward };
}
