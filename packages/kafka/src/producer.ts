import type { LogProducer, OutRecord, PartitionOffset, ProducerOptions } from '@headwater/core';
import { batchesOf } from './batches.js';
import type { Packer } from './codecs.js';
import {
  INVALID_PRODUCER_ID_MAPPING,
  type KafkaError,
  OUT_OF_ORDER_SEQUENCE_NUMBER,
  UNKNOWN_PRODUCER_ID,
  refused,
} from './kafka.errors.js';
import { closedError, type Lane } from './lane.js';
import { choosePartition } from './partition-choice.js';
import { PartitionQueue } from './partition-queue.js';
import { PendingSend, type Part } from './pending-send.js';
import { pauseAfter, produceOnce, type Attempt } from './produce.js';
import { ProducerEpoch } from './producer-epoch.js';
import { encodeBatch } from './record-batch.js';
import type { EncodedBatch } from './requests/produce.js';
import { initProducerId } from './requests/transaction.js';
import { wait } from './wait.js';
import type { Wire } from './wire.js';

const DEFAULT_TIMEOUT_MS = 30_000;

/** The producer's state at a broker is gone or in doubt: a batch so refused is not in the log, and goes again under a new id. */
const RENEWED: ReadonlySet<number> = new Set([
  OUT_OF_ORDER_SEQUENCE_NUMBER,
  INVALID_PRODUCER_ID_MAPPING,
  UNKNOWN_PRODUCER_ID,
]);

/** A batch on its way. */
interface Flight {
  readonly queue: PartitionQueue;
  readonly parts: readonly Part[];
  batch: EncodedBatch;
  /** An attempt of it ended without an answer: it may be in the log. */
  lost: boolean;
  /** An attempt of it is not judged yet. */
  inAir: boolean;
  over: boolean;
}

/**
 * Idempotent sends outside transactions. Each partition has one batch on its way; what is sent meanwhile shares the next one. So a send on
 * an idle line goes out at once, and load makes the batches larger by itself.
 */
export class KafkaProducer implements LogProducer {
  readonly #wire: Wire;
  readonly #lane: Lane;
  readonly #lingerMs: number;
  readonly #timeoutMs: number;
  readonly #queues = new Map<string, PartitionQueue>();
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;
  readonly #pending = new Set<Promise<unknown>>();
  /** The last call to be cut into parts; the next one waits, so that the order of the calls is the order in the queues. */
  #queueing: Promise<unknown> = Promise.resolve();
  #epoch: Promise<ProducerEpoch> | undefined;
  #woken: NodeJS.Immediate | undefined;
  #lingering: NodeJS.Timeout | undefined;
  /** Nothing is waited for longer than this: set by close(). */
  #closesAt = Infinity;
  #closing: Promise<void> | undefined;

  constructor(wire: Wire, options: ProducerOptions = {}) {
    this.#wire = wire;
    wire.adopt(this.#stoppable);
    this.#lane = wire.lane();
    this.#lingerMs = options.lingerMs ?? 0;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  }

  send(records: readonly OutRecord[]): Promise<readonly PartitionOffset[]> {
    if (this.#closing !== undefined) return Promise.reject(closedError());
    const queued = this.#queueing.then(() => this.#queue(records));
    this.#queueing = queued.catch(() => undefined);
    const sent = queued.then(({ settled }) => settled);
    const over: Promise<unknown> = sent.catch(() => undefined).then(() => this.#pending.delete(over));
    this.#pending.add(over);
    return sent;
  }

  /** Waits for what was sent, but no longer than two requests may take; what is open then is told as refused or unknown. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closesAt = performance.now() + 2 * this.#wire.requestTimeoutMs;
    await this.#queueing;
    this.#wake();
    await Promise.all(this.#pending);
    this.#wire.dismiss(this.#stoppable);
    clearImmediate(this.#woken);
    clearTimeout(this.#lingering);
    await this.#wire.release(this.#lane);
  }

  async #queue(records: readonly OutRecord[]): Promise<{ readonly settled: Promise<readonly PartitionOffset[]> }> {
    const queuedAt = performance.now();
    const deadline = queuedAt + this.#timeoutMs;
    const partitionOf = (record: OutRecord) => choosePartition(this.#wire, record, this.#timeoutMs);
    const batches = await batchesOf(records, partitionOf, this.#wire.batchLimits);
    if (batches.length === 0) return { settled: Promise.resolve([]) };
    const send = new PendingSend(batches.length);
    for (const batch of batches) this.#queueOf(batch).add({ ...batch, send, queuedAt, deadline });
    this.#wake();
    return send;
  }

  #queueOf({ topic, partition }: { readonly topic: string; readonly partition: number }): PartitionQueue {
    const key = `${topic}/${partition}`;
    let queue = this.#queues.get(key);
    if (queue === undefined)
      this.#queues.set(key, (queue = new PartitionQueue({ topic, partition }, this.#wire.batchLimits)));
    return queue;
  }

  /** After this turn of the loop: what one turn sends shares batches. */
  #wake(): void {
    this.#woken ??= setImmediate(() => {
      this.#woken = undefined;
      this.#launch();
    });
  }

  #launch(): void {
    clearTimeout(this.#lingering);
    const nowMs = performance.now();
    const lingerMs = this.#closing === undefined ? this.#lingerMs : 0;
    const ready: PartitionQueue[] = [];
    let nextMs = Infinity;
    for (const queue of this.#queues.values()) {
      if (queue.busy || queue.empty) continue;
      const dueMs = queue.dueIn(lingerMs, nowMs);
      if (dueMs <= 0) ready.push(queue);
      else nextMs = Math.min(nextMs, dueMs);
    }
    if (nextMs < Infinity) this.#lingering = setTimeout(() => this.#launch(), Math.ceil(nextMs));
    if (ready.length === 0) return;
    for (const queue of ready) queue.busy = true;
    void this.#fly(ready);
  }

  /** Never rejects: what goes wrong is told to the sends. */
  async #fly(queues: readonly PartitionQueue[]): Promise<void> {
    const flights = queues.map((queue): Flight => ({
      queue,
      parts: queue.take(),
      batch: unencoded(queue),
      lost: false,
      inAir: false,
      over: false,
    }));
    try {
      const packer = await this.#wire.packer();
      await this.#encode(flights, packer);
      await this.#sendAll(flights, packer);
    } catch (cause) {
      for (const flight of flights) {
        flight.lost ||= flight.inAir;
        if (!flight.over) this.#end(flight, cause);
      }
    }
    this.#wake();
  }

  async #sendAll(flights: readonly Flight[], packer: Packer | undefined): Promise<void> {
    const sender = { wire: this.#wire, lane: this.#lane, transactionalId: null, apiVersion: 9 } as const;
    let flying = flights;
    for (let pauseMs = 2; ;) {
      for (const flight of flying) flight.inAir = true;
      const attempts = await produceOnce(
        sender,
        flying.map(({ batch }) => batch),
      );
      const again = flying.filter((flight, at) => this.#judge(flight, attempts[at]!));
      // Those that landed are free for their next batch while the others are tried again.
      if (again.length < flying.length) this.#wake();
      if (again.length === 0) return;
      const moved = attempts.some((attempt) => attempt.result === 'again' && attempt.moved);
      pauseMs = pauseAfter(pauseMs, { moved });
      await wait(pauseMs, this.#wire.closing.signal);
      this.#wire.assertOpen();
      if (moved) await this.#wire.tryRefresh(again.map(({ queue }) => queue.topic));
      await this.#encode(
        again.filter(({ queue }) => queue.epoch === undefined),
        packer,
      );
      flying = again;
    }
  }

  /** True when the batch is to be sent again. */
  #judge(flight: Flight, attempt: Attempt): boolean {
    flight.inAir = false;
    if (attempt.result === 'appended') {
      this.#land(flight, attempt.baseOffset);
      return false;
    }
    if (attempt.result === 'again') flight.lost ||= attempt.lost;
    const renewed = attempt.result === 'refused' && RENEWED.has(attempt.error) && !flight.lost;
    if (renewed) this.#forgetEpoch(flight.queue);
    if (attempt.result === 'refused') {
      const smaller = this.#smaller(flight, attempt.cause);
      if (smaller !== undefined) {
        this.#putBack(flight, smaller);
        return false;
      }
    }
    if ((renewed || attempt.result === 'again') && performance.now() < this.#deadlineOf(flight.parts[0]!)) return true;
    // Refused for its place in the order after a lost answer: the lost one may have been the one that counts.
    this.#end(flight, attempt.cause);
    return false;
  }

  /** What the batch goes as in place of itself, where that may be taken, nothing of it is in the log, and there is time left. */
  #smaller({ lost, parts }: Flight, { code }: KafkaError): readonly Part[] | undefined {
    if (lost || performance.now() >= this.#deadlineOf(parts[0]!)) return undefined;
    if (code === 'LOG_BATCH_TOO_LARGE') return parts.flatMap((part) => part.send.cut(part, this.#wire.batchLimits));
    // One send's record is no reason to refuse the others, which only went with it.
    if (code === 'RECORD_INVALID' && parts.length > 1) return parts.map((part) => ({ ...part, alone: true }));
    return undefined;
  }

  /** To the front of the line: nothing overtakes it. */
  #putBack(flight: Flight, parts: readonly Part[]): void {
    const { queue } = flight;
    // Its sequences were taken and the broker has not seen them: what comes goes under a new id, from 0.
    this.#forgetEpoch(queue);
    queue.putBack(parts);
    flight.over = true;
    queue.busy = false;
  }

  #land(flight: Flight, baseOffset: number): void {
    const { queue, parts } = flight;
    let next = baseOffset;
    for (const { send, records } of parts) {
      next += records.length;
      send.landed(queue, next);
    }
    flight.over = true;
    queue.busy = false;
  }

  #end(flight: Flight, cause: unknown): void {
    const { queue, parts, lost } = flight;
    // Its sequences may be used up or not: what follows on this partition goes under a new id, from 0.
    this.#forgetEpoch(queue);
    for (const { send } of parts) send.lost(lost ? 'unknown' : 'refused', queue, cause);
    for (const { send } of queue.takeExpired(this.#now())) send.lost('refused', queue, cause);
    flight.over = true;
    queue.busy = false;
  }

  async #encode(flights: readonly Flight[], packer: Packer | undefined): Promise<void> {
    const nowMs = Date.now();
    for (const flight of flights) {
      const { queue, parts } = flight;
      const { topic, partition } = queue;
      const epoch = (queue.epoch ??= await this.#currentEpoch());
      const records = parts.length === 1 ? parts[0]!.records : parts.flatMap((part) => part.records);
      const baseSequence = epoch.takeSequence(queue, records.length);
      const { producerId } = epoch;
      const producer = { producerId, epoch: epoch.epoch, baseSequence };
      const options = { packer, kind: 'plain', buffers: this.#wire.buffers } as const;
      const encoded = encodeBatch(records, producer, nowMs, options);
      flight.batch = { topic, partition, records: records.length, from: records, ...encoded };
    }
  }

  #forgetEpoch(queue: PartitionQueue): void {
    queue.epoch = undefined;
    this.#epoch = undefined;
  }

  #currentEpoch(): Promise<ProducerEpoch> {
    this.#epoch ??= this.#newEpoch().catch((error: unknown) => {
      this.#epoch = undefined;
      throw error;
    });
    return this.#epoch;
  }

  async #newEpoch(): Promise<ProducerEpoch> {
    const deadlineMs = Math.min(this.#timeoutMs, this.#closesAt - performance.now());
    const answer = await this.#wire.anyAnswer(initProducerId(null, this.#timeoutMs), { deadlineMs });
    if (answer.error !== 0) throw refused('InitProducerId', answer.error);
    return new ProducerEpoch(answer);
  }

  #deadlineOf(part: Part): number {
    return Math.min(part.deadline, this.#closesAt);
  }

  /** For deadlines: once closing is over, everything has expired. */
  #now(): number {
    const now = performance.now();
    return now >= this.#closesAt ? Infinity : now;
  }
}

function unencoded({ topic, partition }: PartitionQueue): EncodedBatch {
  return { topic, partition, records: 0, bytes: Buffer.alloc(0) };
}
