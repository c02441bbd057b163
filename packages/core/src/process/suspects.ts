import { HeadwaterError, errorCode } from '../errors/headwater.error.js';
import type { LogRecord } from '../log/log.js';
import type { DueTimer } from './processor.js';

/** A record or timer of a task: what a handler is called for. */
export type Unit = { readonly record: LogRecord } | { readonly timer: DueTimer; readonly partition: number };

export interface Verdict {
  readonly error: unknown;
  /** Its parking was refused as well: park it without its value. */
  readonly bare: boolean;
}

/** The log refuses such a record whenever it is sent; no state of the cluster changes that. */
const RECORD_FAULTS = new Set(['RECORD_TOO_LARGE', 'RECORD_INVALID', 'LOG_PARTITION_MISSING', 'LOG_TOPIC_MISSING']);

/** The topics of a processor, to tell what a record is guilty of. */
export interface OwnTopics {
  /** That it waits for when they are missing. */
  readonly needed: readonly string[];
  /** That only the engine writes: what is wrong with them is no record's fault, but for its size. */
  readonly internal: readonly string[];
}

export function isRecordFault(error: unknown, { needed, internal }: OwnTopics): boolean {
  const code = errorCode(error) ?? '';
  if (!RECORD_FAULTS.has(code)) return false;
  if (code === 'RECORD_TOO_LARGE') return true;
  const topic = error instanceof HeadwaterError ? error.facts['topic'] : undefined;
  if (typeof topic !== 'string') return code !== 'LOG_TOPIC_MISSING';
  return !internal.includes(topic) && !(code === 'LOG_TOPIC_MISSING' && needed.includes(topic));
}

/**
 * Finds whose outputs the log refuses for good. A refused batch is repeated one unit at a time; the unit that is refused alone is
 * guilty, and is parked at the next repetition. Kept over assignments: a repetition is a new piece of work.
 */
export class Suspects {
  readonly #guilty = new Map<string, Verdict>();
  #alone = 0;

  /** Units must be committed one at a time now. */
  get narrowing(): boolean {
    return this.#alone > 0;
  }

  refused(units: number, last: Unit, error: unknown): void {
    this.#alone = Math.max(this.#alone, units);
    if (units > 1) return;
    this.#guilty.set(nameOf(last), { error, bare: this.#guilty.has(nameOf(last)) });
  }

  committed(units: number, last: Unit): void {
    this.#alone = Math.max(0, this.#alone - units);
    if (this.#guilty.size > 0) this.#guilty.delete(nameOf(last));
  }

  verdict(unit: Unit): Verdict | undefined {
    return this.#guilty.size === 0 ? undefined : this.#guilty.get(nameOf(unit));
  }
}

/** What the unit is called, in errors too. */
export function nameOf(unit: Unit): string {
  if ('record' in unit) return `${unit.record.topic}/${unit.record.partition}/${unit.record.offset}`;
  return `timer/${unit.partition}/${unit.timer.id}/${unit.timer.atMs}`;
}
