import { errorMessage } from '@headwater/core';
import type { Clock } from '@headwater/core';
import type { Client } from 'pg';
import type { CaptureLogger } from './capture.options.js';
import { Lag } from './lag.js';
import { maxLsn, parseLsn, ZERO_LSN } from './lsn.js';
import { openSession } from './postgres-session.js';
import { readSlot, slotAlarms, slotHealth } from './slot-health.js';
import type { SlotAlarmPolicy, SlotHealth, SlotReading } from './slot-health.js';

export interface SlotWatchOptions {
  readonly name: string;
  readonly connectionString: string;
  readonly slot: string;
  readonly clock: Clock;
  readonly logger: CaptureLogger;
  readonly alarms?: SlotAlarmPolicy;
  /** Pause between two readings. Default 1,000. */
  readonly intervalMs?: number;
}

/** What an observer knows of a slot now. */
export interface WatchedSlot {
  /** Undefined while the server does not answer: no old figure is shown as a present one. */
  readonly health: SlotHealth | undefined;
  /** WAL that is written and not published. Undefined as `health`. */
  readonly lagBytes: number | undefined;
  /** Age of the oldest WAL that is not published; grows also while the server does not answer. */
  readonly lagMs: number | undefined;
  readonly alarms: readonly string[];
}

const INTERVAL_MS = 1_000;
/** A server that takes longer to answer counts as lost. */
const SILENCE_MS = 5_000;
const STOP_MS = 500;
/** The rate of the WAL is that of this many readings. */
const WINDOW = 60;

/**
 * Reads the health of one slot on a session and a timer of its own, so that its figures go on while capture hangs, waits or has halted.
 * Needs no rights. Errors end nothing: the next reading opens a new session.
 */
export class SlotWatch {
  readonly #options: SlotWatchOptions;
  readonly #stop = new AbortController();
  readonly #lag = new Lag();
  #readings: SlotReading[] = [];
  #answering = false;
  #inactiveSinceMs: number | undefined;
  #alarms: readonly string[] = [];
  #session: Client | undefined;
  #running: Promise<void> | undefined;

  constructor(options: SlotWatchOptions) {
    this.#options = options;
  }

  /** May be called twice. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends the session. May be called twice. */
  async stop(): Promise<void> {
    this.#stop.abort();
    // A connection being opened to a silent server holds nobody up; it ends by itself.
    const over = new AbortController();
    await Promise.race([this.#running, this.#options.clock.wait(STOP_MS, over.signal)]);
    over.abort();
  }

  /** `endLsn`: that of the last committed position, as far as it is known here; another process may have moved the slot further. */
  watched(endLsn: string | undefined, publishedAgeMs?: number): WatchedSlot {
    const confirmed = this.#readings.at(-1)?.slot?.confirmedLsn ?? ZERO_LSN;
    const reached = endLsn === undefined ? confirmed : maxLsn(parseLsn(endLsn), confirmed);
    return {
      health: this.#answering ? slotHealth(this.#readings) : undefined,
      lagBytes: this.#answering ? this.#lag.bytes(reached) : undefined,
      lagMs: this.#lag.ms(this.#options.clock.elapsed(), reached, publishedAgeMs),
      alarms: this.#alarms,
    };
  }

  async #run(): Promise<void> {
    const { clock, intervalMs = INTERVAL_MS, logger, name } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#read();
      } catch (error) {
        if (this.#answering && !signal.aborted)
          logger.warn(`capture ${name}: the health of its slot cannot be read: ${errorMessage(error)}`);
        this.#answering = false;
        this.#leave();
      }
      await clock.wait(intervalMs, signal);
    }
    this.#leave();
  }

  /** Not awaited: a connection that went silent would hold up the next reading, or the stop. */
  #leave(): void {
    void this.#session?.end().catch(() => undefined);
    this.#session = undefined;
  }

  async #read(): Promise<void> {
    const { clock, connectionString, name, slot } = this.#options;
    this.#session ??= await openSession(connectionString, name);
    // Not AbortSignal.any: before Node 26 the long-lived signal keeps every one that was made of it.
    const over = new AbortController();
    const end = () => over.abort();
    this.#stop.signal.addEventListener('abort', end);
    const silence = clock.wait(SILENCE_MS, over.signal);
    const reading = await Promise.race([
      readSlot(this.#session, slot, () => clock.elapsed()),
      silence.then((): never => {
        throw new Error(`no answer for ${SILENCE_MS} ms`);
      }),
    ]).finally(() => {
      this.#stop.signal.removeEventListener('abort', end);
      over.abort();
    });
    this.#answering = true;
    this.#readings = [...this.#readings.slice(1 - WINDOW), reading];
    this.#lag.sample(reading.atMs, reading.walLsn);
    this.#inactiveSinceMs = reading.slot?.active === true ? undefined : (this.#inactiveSinceMs ?? reading.atMs);
    this.#raise(reading.atMs);
  }

  /** Logs an alarm when it begins, not at every reading. */
  #raise(nowMs: number): void {
    const { alarms: policy, logger, name, slot } = this.#options;
    const inactiveMs = this.#inactiveSinceMs === undefined ? 0 : nowMs - this.#inactiveSinceMs;
    const alarms = slotAlarms(slot, slotHealth(this.#readings), inactiveMs, policy);
    const kinds = this.#alarms.map(kindOf);
    for (const alarm of alarms) if (!kinds.includes(kindOf(alarm))) logger.warn(`capture ${name}: ${alarm}`);
    this.#alarms = alarms;
  }
}

/** An alarm without its figures. */
const kindOf = (alarm: string): string => alarm.replaceAll(/[\d.]+/g, '');
