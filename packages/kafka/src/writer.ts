import type { GroupOffsets, LogInput, LogTransaction, LogWriter, Outcome, WriterOptions } from '@headwater/core';
import { KafkaError } from './kafka.errors.js';
import { closedError, type Lane } from './lane.js';
import { KafkaTransaction, type AfterTransaction, type TransactionOwner } from './transaction.js';
import { TransactionalProducer } from './transactional-producer.js';
import type { Wire } from './wire.js';

const FENCE_PATIENCE_MS = 30_000;
const SECOND = '~2';

/**
 * One writer, two transactional ids used in turn: the broker writes a transaction's markers after it has answered EndTxn, and makes the next
 * transaction of the same id wait for them. Why this keeps order and fencing: docs/decisions/005-two-producers-in-turn.md.
 */
export class KafkaWriter implements LogWriter, TransactionOwner {
  readonly transactionalId: string;
  readonly timeoutMs: number;
  readonly wire: Wire;
  readonly lane: Lane;
  readonly #producers: readonly [TransactionalProducer, TransactionalProducer];
  #turn: 0 | 1 = 0;
  /** True from a fence() that reached both producers until one of them is in doubt. */
  #fenced = false;
  #open: LogTransaction | undefined;
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;
  #closed = false;

  constructor(wire: Wire, options: WriterOptions) {
    const { transactionalId } = options;
    if (transactionalId.endsWith(SECOND)) {
      throw new KafkaError(
        'LOG_OPTIONS_INVALID',
        `transactionalId "${transactionalId}" ends with ${SECOND}, which names the second producer of another writer. Choose another one.`,
        { facts: { transactionalId } },
      );
    }
    this.wire = wire;
    wire.adopt(this.#stoppable);
    this.lane = wire.lane();
    this.transactionalId = transactionalId;
    this.#producers = [new TransactionalProducer(transactionalId), new TransactionalProducer(transactionalId + SECOND)];
    this.timeoutMs = options.transactionTimeoutMs ?? 8_000;
  }

  async fence(): Promise<void> {
    this.#assertOpen();
    this.#unfence();
    this.#open = undefined;
    const at = this.#at(FENCE_PATIENCE_MS);
    const ends = await Promise.allSettled(this.#producers.map((producer) => producer.initialise('anyway', at)));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    this.#assertOpen();
    this.#fenced = true;
  }

  begin(): LogTransaction {
    const producer = this.#producers[this.#turn];
    const { transactionalId } = this;
    if (this.#closed) return new KafkaTransaction(this, producer, closedError());
    if (this.#open !== undefined) {
      const why = `${transactionalId} has a transaction open. Commit or abort it first.`;
      return new KafkaTransaction(this, producer, new KafkaError('LOG_WRITER_BUSY', why));
    }
    if (!this.#fenced) {
      const why = `${transactionalId} is not fenced. Call fence() first.`;
      return new KafkaTransaction(this, producer, new KafkaError('LOG_WRITER_NOT_READY', why));
    }
    return (this.#open = new KafkaTransaction(this, producer));
  }

  async transact(records: readonly LogInput[], offsets?: GroupOffsets): Promise<Outcome> {
    const outcome = await this.#transactOnce(records, offsets);
    // Renewed by then, and nothing of it was taken: the same once more.
    return isExpired(outcome) ? this.#transactOnce(records, offsets) : outcome;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.wire.dismiss(this.#stoppable);
    const open = this.#open;
    if (open !== undefined && !this.wire.closing.signal.aborted) await open.abort(closedError());
    this.#unfence();
    await this.wire.release(this.lane);
  }

  async renew(transaction: LogTransaction, deadlineMs: number): Promise<void> {
    if (this.#open !== transaction) return;
    await this.#producers[this.#turn].initialise('unless-taken', this.#at(deadlineMs));
  }

  async retake(transaction: LogTransaction, deadlineMs: number): Promise<boolean> {
    // Who holds the first id is the writer: two that fence at one time may each get one of the two.
    if (this.#open !== transaction || this.#turn === 0) return false;
    const [first, second] = this.#producers;
    try {
      await first.initialise('unless-taken', this.#at(deadlineMs));
      await second.initialise('anyway', this.#at(deadlineMs));
    } catch {
      return false;
    }
    this.#turn = 0;
    return true;
  }

  ended(transaction: LogTransaction, after: AfterTransaction): void {
    if (this.#open !== transaction) return;
    this.#open = undefined;
    if (after === 'untouched') return;
    // A fenced or unknown producer leaves the order of the two open: both start anew.
    if (after === 'unfenced') return this.#unfence();
    if (after !== 'same') this.#producers[this.#turn].becomes(after);
    this.#turn = this.#turn === 0 ? 1 : 0;
  }

  async #transactOnce(records: readonly LogInput[], offsets?: GroupOffsets): Promise<Outcome> {
    const transaction = this.begin();
    // Not awaited: records and offsets go out together; commit waits for both.
    transaction.append(records).catch(() => undefined);
    return transaction.commit(offsets);
  }

  #at(deadlineMs: number) {
    return { wire: this.wire, lane: this.lane, timeoutMs: this.timeoutMs, deadlineMs };
  }

  #unfence(): void {
    this.#fenced = false;
    this.#turn = 0;
    for (const producer of this.#producers) producer.forget();
  }

  #assertOpen(): void {
    if (this.#closed) throw closedError();
  }
}

function isExpired(outcome: Outcome): boolean {
  if (outcome.outcome !== 'aborted' || outcome.fenced !== undefined) return false;
  return outcome.cause instanceof KafkaError && outcome.cause.code === 'LOG_WRITER_EXPIRED';
}
