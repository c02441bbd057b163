import { backoffMs, type Clock } from '../clock/clock.js';
import { HeadwaterError, errorMessage } from '../errors/headwater.error.js';
import type { LogRecord } from '../log/log.js';
import { controlEvent, decodeControl, type ControlOrder, type ControlResult } from './control.js';
import { parkedCopy } from './parking.js';
import { parkedUnit, sequenceOf, timerSequence, type ParkedUnit } from './parked-unit.js';
import {
  appendParked,
  boundsEntry,
  boundsOf,
  dropAll,
  dropFirst,
  firstParked,
  replaceFirst,
} from './parked-sequence.js';
import { DEFAULT_FAILURE_POLICY, parkedTopicOf, type FailurePolicy, type ProcessorDefinition } from './processor.js';
import { Scope } from './scope.js';
import { nameOf, type Suspects, type Unit, type Verdict } from './suspects.js';
import type { WriteSet } from './write-set.js';

/** How many parked units are handled again before others get a turn. */
const RETRIED_PER_BREATH = 64;

interface Failure {
  readonly error: unknown;
  /** No repetition will mend it. */
  readonly lasting: boolean;
}

/** Calls the handlers of a task. Everything a handler does is kept when it ends well, nothing otherwise (P5). */
export class UnitRunner {
  readonly #definition: ProcessorDefinition;
  readonly #policy: FailurePolicy;
  readonly #partition: number;
  readonly #clock: Clock;
  readonly #suspects: Suspects;
  readonly #outputs: ReadonlySet<string> | undefined;
  #mayBeParked: boolean;

  constructor(
    definition: ProcessorDefinition,
    task: { readonly partition: number; readonly hasParked: boolean },
    clock: Clock,
    suspects: Suspects,
  ) {
    this.#definition = definition;
    this.#outputs = definition.outputs && new Set(definition.outputs);
    this.#policy = definition.onFailure ?? DEFAULT_FAILURE_POLICY;
    this.#partition = task.partition;
    this.#mayBeParked = task.hasParked;
    this.#clock = clock;
    this.#suspects = suspects;
  }

  /** Handles the unit or parks it; true: parked. Returns a promise only when there is something to wait for. */
  run(unit: Unit, writes: WriteSet): boolean | Promise<boolean> {
    writes.savepoint();
    const verdict = this.#suspects.verdict(unit) ?? this.#behindParked(unit, writes);
    if (verdict !== undefined) return this.#park(unit, writes, verdict);
    const handling = this.#attempt(unit, writes);
    if (handling === undefined) return false;
    return handling.then((failure) => {
      if (failure === undefined) return false;
      if (!failure.lasting && this.#policy.finally === 'stop') throw halted(this.#definition.name, unit, failure.error);
      return this.#park(unit, writes, { error: failure.error, bare: false });
    });
  }

  /** Does what an operator asks, and leaves a record of it. */
  async control(record: LogRecord, writes: WriteSet): Promise<void> {
    writes.savepoint();
    const order = decodeControl(record);
    const verdict = this.#suspects.verdict({ record });
    const result =
      order === undefined
        ? refused('the record is no order, or names nobody or no reason')
        : verdict !== undefined
          ? refused(errorMessage(verdict.error), boundsOf(writes, order.sequence))
          : await this.#carryOut(order, writes);
    const event = controlEvent(parkedTopicOf(this.#definition.name), record, result);
    writes.send(verdict?.bare === true ? { ...event, value: null } : event);
  }

  async #carryOut(order: ControlOrder, writes: WriteSet): Promise<ControlResult> {
    const { sequence } = order;
    const first = firstParked(writes, sequence);
    if (first === undefined) return refused('nothing is parked here');
    if (order.act === 'discard') {
      const dropped = order.all ? dropAll(writes, sequence) : 1;
      if (!order.all) dropFirst(writes, sequence);
      return { outcome: 'done', handled: 0, dropped, left: left(writes, sequence) };
    }
    if (order.act === 'edit') {
      if ('timer' in first.unit) return refused('a timer has no value', boundsOf(writes, sequence));
      const unit = { record: { ...first.unit.record, value: order.value } };
      replaceFirst(writes, sequence, { ...first, unit, bare: false });
    }
    return this.#retry(sequence, writes);
  }

  /** In order, each kept by itself, up to the first that fails again. */
  async #retry(sequence: string, writes: WriteSet): Promise<ControlResult> {
    for (let handled = 0; ; handled++) {
      const parked = firstParked(writes, sequence);
      if (parked === undefined) return { outcome: 'done', handled, dropped: 0, left: 0 };
      const failure = await this.#again(parked, writes);
      if (failure !== undefined) {
        const detail = errorMessage(failure.error);
        replaceFirst(writes, sequence, parkedUnit(parked.unit, { error: failure.error, bare: parked.bare }));
        return { outcome: 'parked', handled, dropped: 0, left: left(writes, sequence), detail };
      }
      dropFirst(writes, sequence);
      if (handled % RETRIED_PER_BREATH === 0) await this.#clock.breathe();
    }
  }

  async #again({ unit, bare }: ParkedUnit, writes: WriteSet): Promise<Failure | undefined> {
    if (bare) return { error: valueOmitted(unit), lasting: true };
    writes.savepoint();
    return this.#attempt(unit, writes);
  }

  /** Undefined: it ended well, at once. Nothing of a failure is kept. */
  #attempt(unit: Unit, writes: WriteSet): undefined | Promise<Failure | undefined> {
    const scope = this.#scope(writes);
    try {
      const running = this.#call(unit, scope, writes);
      if (isPromise(running)) return this.#settle(unit, writes, scope, running);
      scope.end();
      return undefined;
    } catch (error) {
      return this.#settle(unit, writes, scope, Promise.reject(error));
    }
  }

  /** Of one id only the latest timer counts: what is set or cancelled is not parked any more. */
  #scope(writes: WriteSet): Scope {
    const onTimer = this.#mayBeParked ? (id: string) => void dropAll(writes, timerSequence(id)) : undefined;
    return new Scope(writes, this.#clock.now(), onTimer, this.#outputs);
  }

  #call(unit: Unit, scope: Scope, writes: WriteSet): void | Promise<void> {
    if ('record' in unit) return this.#definition.onRecord(unit.record, scope);
    clearTimer(unit.timer, writes);
    return this.#definition.onTimer?.(unit.timer, scope);
  }

  async #settle(unit: Unit, writes: WriteSet, first: Scope, running: Promise<void>): Promise<Failure | undefined> {
    let scope = first;
    for (let attempt = 1; ; attempt++) {
      try {
        await (attempt === 1 ? running : this.#call(unit, scope, writes));
        scope.end();
        return undefined;
      } catch (error) {
        scope.end();
        writes.rollback();
        const lasting = error instanceof HeadwaterError && !error.retryable;
        if (lasting || attempt >= this.#policy.attempts) return { error, lasting };
        await this.#clock.wait(backoffMs(attempt));
        scope = this.#scope(writes);
      }
    }
  }

  /** P6: what follows a parked record on its key waits behind it, in order. */
  #behindParked(unit: Unit, writes: WriteSet): Verdict | undefined {
    if (!this.#mayBeParked) return undefined;
    if ('timer' in unit || unit.record.key === null) return undefined;
    if (writes.get(boundsEntry(sequenceOf(unit))) === undefined) return undefined;
    return { error: new HeadwaterError('KEY_PARKED', 'an earlier record of this key is parked'), bare: false };
  }

  #park(unit: Unit, writes: WriteSet, verdict: Verdict): true {
    this.#mayBeParked = true;
    const parked = parkedUnit(unit, verdict);
    if ('timer' in unit) {
      clearTimer(unit.timer, writes);
      dropAll(writes, timerSequence(unit.timer.id));
    }
    appendParked(writes, sequenceOf(unit), parked);
    writes.send(parkedCopy(this.#definition.name, this.#partition, parked));
    return true;
  }
}

/** Unless it was set to another time since. */
function clearTimer({ id, atMs }: { readonly id: string; readonly atMs: number }, writes: WriteSet): void {
  const entry = `t:${id}`;
  if (writes.get(entry)?.toString('utf8') === String(atMs)) writes.set(entry, null);
}

function left(writes: WriteSet, sequence: string): number {
  const bounds = boundsOf(writes, sequence);
  return bounds === undefined ? 0 : bounds.next - bounds.first;
}

function refused(detail: string, bounds?: { readonly first: number; readonly next: number }): ControlResult {
  return {
    outcome: 'refused',
    handled: 0,
    dropped: 0,
    left: bounds === undefined ? 0 : bounds.next - bounds.first,
    detail,
  };
}

function halted(processor: string, unit: Unit, cause: unknown): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_HALTED',
    `${nameOf(unit)} cannot be handled: ${errorMessage(cause)}. Nothing of it was kept. Mend the handler or the data, then start the processor again.`,
    { facts: { processor, unit: nameOf(unit) }, cause },
  );
}

function valueOmitted(unit: Unit): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_VALUE_OMITTED',
    `the value of ${nameOf(unit)} was too large to be set aside. Give another value (edit), or discard it.`,
  );
}

function isPromise(value: void | Promise<void>): value is Promise<void> {
  return typeof (value as Promise<void> | undefined)?.then === 'function';
}
