import { HeadwaterError, errorCode, errorMessage } from '../errors/headwater.error.js';
import { textHeaders } from '../log/headers.js';
import type { LogRecord, OutRecord } from '../log/log.js';
import { backoffMs, type Clock } from '../clock/clock.js';
import {
  parkedTopicOf,
  stateTopicOf,
  type DueTimer,
  type ProcessContext,
  type ProcessorDefinition,
} from './processor.js';
import { TaskState, WriteSet } from './task-state.js';

/** How often a technical error is tried again before the key is parked. */
export const HANDLER_ATTEMPTS = 3;

/** One task: the handlers of a processor over one partition of all its inputs. Effects wait in `batch` until the runner has committed. */
export class Task {
  readonly partition: number;
  readonly state = new TaskState();
  readonly #definition: ProcessorDefinition;
  readonly #clock: Clock;
  #batch: WriteSet;

  constructor(definition: ProcessorDefinition, partition: number, clock: Clock) {
    this.#definition = definition;
    this.partition = partition;
    this.#clock = clock;
    this.#batch = new WriteSet(this.state);
  }

  /** P4: due timers are handled before newer records. */
  async handleTimers(): Promise<number> {
    const due = this.state.dueTimers(this.#clock.now());
    for (const timer of due) {
      // An earlier timer of this batch may have cancelled or moved it.
      if (this.#batch.get(`t:${timer.id}`)?.toString('utf8') !== String(timer.atMs)) continue;
      const layer = new WriteSet(this.#batch);
      layer.set(`t:${timer.id}`, null);
      await this.#attempt(
        layer,
        (attempt) => this.#definition.onTimer?.(timer, this.#context(attempt)),
        (error) => this.#parkTimer(timer, error),
      );
    }
    return due.length;
  }

  async handle(record: LogRecord): Promise<void> {
    const layer = new WriteSet(this.#batch);
    layer.set(`o:${record.topic}`, Buffer.from(String(record.offset + 1)));
    const parkedEntry = `p:${record.key?.toString('base64') ?? ''}`;
    if (record.key !== null && this.#batch.get(parkedEntry) !== undefined) {
      // P6: the key is parked; what follows it waits behind it, in order.
      layer.sent.push(
        this.#parkRecord(record, new HeadwaterError('KEY_PARKED', 'an earlier record of this key is parked')),
      );
      this.#batch.merge(layer);
      return;
    }
    await this.#attempt(
      layer,
      (attempt) => this.#definition.onRecord(record, this.#context(attempt)),
      (error) => {
        const parked = new WriteSet(this.#batch);
        if (record.key !== null) parked.set(parkedEntry, Buffer.from(String(record.offset)));
        parked.sent.push(this.#parkRecord(record, error));
        return parked;
      },
    );
  }

  /** The batch as records: outputs, then the state entries, addressed to this task's partition of the state topic. */
  outgoing(): OutRecord[] {
    const topic = stateTopicOf(this.#definition.name);
    const out = [...this.#batch.sent];
    for (const [entry, value] of this.#batch.entries)
      out.push({ topic, partition: this.partition, key: Buffer.from(entry), value });
    return out;
  }

  /** P2: the state receives the batch only after the log has committed it. */
  committed(): void {
    for (const [entry, value] of this.#batch.entries) this.state.apply(entry, value);
    this.#batch = new WriteSet(this.state);
  }

  /** Runs a handler on a layer of its own over `layer`; merges both when it succeeds, otherwise `layer` and what `park` makes of the error. */
  async #attempt(
    layer: WriteSet,
    handler: (attempt: WriteSet) => void | Promise<void> | undefined,
    park: (error: unknown) => WriteSet,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const own = new WriteSet(layer);
      try {
        await handler(own);
        layer.merge(own);
        break;
      } catch (error) {
        // P5: nothing of a failed attempt is kept.
        const lasting = error instanceof HeadwaterError && !error.retryable;
        if (lasting || attempt >= HANDLER_ATTEMPTS) {
          layer.merge(park(error));
          break;
        }
        await this.#clock.wait(backoffMs(attempt));
      }
    }
    this.#batch.merge(layer);
  }

  #context(layer: WriteSet): ProcessContext {
    return {
      now: this.#clock.now(),
      state: {
        get: (key) => layer.get(`s:${key}`),
        put: (key, value) => layer.set(`s:${key}`, value),
        delete: (key) => layer.set(`s:${key}`, null),
      },
      timers: {
        set: (id, atMs) => layer.set(`t:${id}`, Buffer.from(String(atMs))),
        cancel: (id) => {
          if (layer.get(`t:${id}`) !== undefined) layer.set(`t:${id}`, null);
        },
      },
      send: (record) => layer.sent.push(record),
    };
  }

  #parkRecord(record: LogRecord, error: unknown): OutRecord {
    return {
      topic: parkedTopicOf(this.#definition.name),
      partition: this.partition,
      key: record.key,
      value: record.value,
      headers: [
        ...record.headers,
        ...textHeaders({
          hw_parked_topic: record.topic,
          hw_parked_partition: String(record.partition),
          hw_parked_offset: String(record.offset),
          hw_parked_code: errorCode(error) ?? 'HANDLER_FAILED',
          hw_parked_reason: errorMessage(error),
        }),
      ],
    };
  }

  #parkTimer(timer: DueTimer, error: unknown): WriteSet {
    const parked = new WriteSet(this.#batch);
    parked.sent.push({
      topic: parkedTopicOf(this.#definition.name),
      partition: this.partition,
      key: Buffer.from(timer.id),
      value: null,
      headers: textHeaders({
        hw_parked_timer: String(timer.atMs),
        hw_parked_code: errorCode(error) ?? 'HANDLER_FAILED',
        hw_parked_reason: errorMessage(error),
      }),
    });
    return parked;
  }
}
