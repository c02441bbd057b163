import {
  boundsOf,
  controlEvent,
  controlTopicOf,
  decodeControl,
  dropAll,
  dropFirst,
  errorCode,
  errorMessage,
  headerText,
  parkedTopicOf,
  replaceFirst,
  stateTopicOf,
} from '@headwater/core';
import type { ControlOrder, ControlResult, Log, LogRecord, OutRecord, ParkedUnit } from '@headwater/core';
import { isFatal } from '../cdc.errors.js';
import type { LearnedLimits } from './learned-limits.js';
import type { Publisher } from '../publish.js';
import { RAW_VALUE } from './parking.js';
import type { Parking } from './parking.js';
import { topicOfSequence } from './parked-entries.js';
import type { ParkedEntries } from './parked-entries.js';
import { parkedNameOf } from './parked-topics.js';

export interface OrdersSetup {
  readonly name: string;
  readonly log: Log;
  readonly parking: Parking;
  readonly entries: ParkedEntries;
  readonly publisher: Publisher;
  readonly learned: LearnedLimits;
  /** The record of a change whose value is not kept, from its row as it is now; undefined: the row is gone. */
  readonly reread: (record: LogRecord) => Promise<OutRecord | undefined>;
  /** There is something to do between two source transactions. */
  readonly onDue: () => void;
}

/**
 * What operators ask of a capture, from its control topic, one order at a time: carried out once, in a log transaction with its result and with how far
 * the control topic is read.
 */
export class ParkedOrders {
  readonly #topic: string;
  readonly #stateTopic: string;
  readonly #waiting: LogRecord[] = [];
  #obeyed: () => void = () => {};
  #failure: { readonly error: unknown } | undefined;

  constructor(private readonly setup: OrdersSetup) {
    const name = parkedNameOf(setup.name);
    this.#topic = controlTopicOf(name);
    this.#stateTopic = stateTopicOf(name);
  }

  /** An order waits, or reading them has failed: `obey` is to be called outside of a source transaction. */
  get due(): boolean {
    return this.#waiting.length > 0 || this.#failure !== undefined;
  }

  /** Reads orders until the signal aborts. Never rejects: `obey` does. */
  async listen(signal: AbortSignal): Promise<void> {
    const reader = this.setup.log.reader();
    try {
      reader.seek(this.#topic, 0, await this.#next());
      while (!signal.aborted) {
        for (const { records } of await reader.poll({ maxWaitMs: 500, signal })) this.#waiting.push(...records);
        if (this.#waiting.length === 0) continue;
        const obeyed = new Promise<void>((resolve) => (this.#obeyed = resolve));
        this.setup.onDue();
        await obeyed;
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#failure = { error };
      this.setup.onDue();
    } finally {
      await reader.close();
    }
  }

  /** Nobody asks for orders any more. */
  end(): void {
    this.#waiting.length = 0;
    this.#obeyed();
  }

  /** Carries out one order. Rejects with what reading them failed with. */
  async obey(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    const record = this.#waiting[0]!;
    const { publisher, entries, name } = this.setup;
    // What is parked so far is read from the log.
    await publisher.drain();
    const order = decodeControl(record);
    const result =
      order === undefined
        ? refused('the record is no order, or names nobody or no reason', 0)
        : await this.#carryOut(order);
    publisher.add(controlEvent(parkedTopicOf(parkedNameOf(name)), { ...record, partition: 0, value: null }, result));
    entries.set(`o:${this.#topic}`, Buffer.from(String(record.offset + 1)));
    publisher.completeBeside();
    publisher.flush(true);
    this.#waiting.shift();
    if (this.#waiting.length === 0) this.#obeyed();
  }

  async #carryOut(order: ControlOrder): Promise<ControlResult> {
    const { entries } = this.setup;
    const { sequence } = order;
    const parked = this.#left(sequence);
    if (parked === 0) return refused('nothing is parked here', 0);
    if (order.act === 'edit')
      return refused('a captured change has no other value than its row: mend the row, then retry or discard', parked);
    if (order.act === 'retry') return this.#retry(sequence);
    const dropped = order.all ? dropAll(entries, sequence) : 1;
    if (!order.all) dropFirst(entries, sequence);
    return { outcome: 'done', handled: 0, dropped, left: this.#left(sequence) };
  }

  /** In order, up to the first that is refused again. */
  async #retry(sequence: string): Promise<ControlResult> {
    const { entries, publisher } = this.setup;
    const unreachable = await this.#openTopic(sequence);
    if (unreachable !== undefined) return refused(errorMessage(unreachable), this.#left(sequence));
    const end = await this.#stateEnd();
    let [handled, dropped] = [0, 0];
    for (let bounds = boundsOf(entries, sequence); bounds !== undefined; bounds = boundsOf(entries, sequence)) {
      const units = await entries.units(sequence, bounds, end);
      if (!units.has(bounds.first)) return refused(`${this.#stateTopic} has lost what is parked`, this.#left(sequence));
      for (let n = bounds.first; units.has(n); n++) {
        const unit = units.get(n)!;
        const again = await this.#again(unit);
        if (again === 'gone') dropped += 1;
        else if (again === 'published') handled += 1;
        else {
          const { error } = again;
          const reason = errorMessage(error);
          replaceFirst(entries, sequence, { ...unit, code: errorCode(error) ?? 'CDC_VALUE_INVALID', reason });
          return { outcome: 'parked', handled, dropped, left: this.#left(sequence), detail: reason };
        }
        dropFirst(entries, sequence);
        if (publisher.isFull) await publisher.makeRoom();
      }
    }
    return { outcome: 'done', handled, dropped, left: 0 };
  }

  /** Behind all that is committed there: the markers of the last transaction may still be under way. */
  async #stateEnd(): Promise<number> {
    const [bounds] = await this.setup.log.admin.offsets(this.#stateTopic);
    return Math.max(bounds!.lastStable, this.setup.publisher.committedEnd(this.#stateTopic, 0) ?? 0);
  }

  /** By its limits as they are now. Returns what is wrong with it. */
  async #openTopic(sequence: string): Promise<unknown> {
    const topic = topicOfSequence(sequence);
    try {
      if (topic === undefined) return undefined;
      this.setup.learned.forget(topic);
      await this.setup.publisher.open([topic]);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  async #again({ unit, bare }: ParkedUnit): Promise<'published' | 'gone' | { readonly error: unknown }> {
    if (!('record' in unit)) return 'gone';
    const { record } = unit;
    const isWhole = !bare && headerText(record.headers, RAW_VALUE[0]) === undefined;
    try {
      const made = isWhole ? asAtFirst(record) : await this.setup.reread(record);
      if (made === undefined) return 'gone';
      const error = this.setup.parking.publishAgain(made);
      return error === undefined ? 'published' : { error };
    } catch (error) {
      // What a repetition cannot mend is no reason to halt: the operator is told.
      if (isFatal(error)) return { error };
      throw error;
    }
  }

  #left(sequence: string): number {
    const bounds = boundsOf(this.setup.entries, sequence);
    return bounds === undefined ? 0 : bounds.next - bounds.first;
  }

  async #next(): Promise<number> {
    const [bounds] = await this.setup.log.admin.offsets(this.#topic);
    const kept = Number(this.setup.entries.get(`o:${this.#topic}`)?.toString() ?? 0);
    const { start, high } = bounds!;
    // Made again, or its old orders are gone.
    return kept < start || kept > high ? start : kept;
  }
}

/** In the partition where it would have been. */
function asAtFirst({ topic, partition, key, value, headers }: LogRecord): OutRecord {
  return { topic, partition, key, value, headers };
}

function refused(detail: string, left: number): ControlResult {
  return { outcome: 'refused', handled: 0, dropped: 0, left, detail };
}
