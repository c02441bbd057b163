import { writerFenced } from './refusals.js';

export interface MemoryTransaction {
  readonly number: number;
  readonly transactionalId: string;
  readonly epoch: number;
  readonly startedAtMs: number;
}

export type Ending = 'commit' | 'abort';

interface Holder {
  epoch: number;
  open?: MemoryTransaction;
  /** Decided, but not every marker has landed. */
  readonly completing: Set<MemoryTransaction>;
}

/** How many decided transactions of one id may wait for their markers while the next one is written. */
const MAX_COMPLETING = 1;

/** Who may write under a transactional id, and which transaction of it is open. Decides only; records and markers are its caller's. */
export class TransactionCoordinator {
  readonly #holders = new Map<string, Holder>();
  #numbers = 0;

  /** Fences every older writer of the id. Returns the open transaction that has to be aborted, if there is one. */
  fence(transactionalId: string): { readonly epoch: number; readonly aborted?: MemoryTransaction } {
    const holder = this.#holder(transactionalId);
    const epoch = ++holder.epoch;
    const aborted = this.#close(holder);
    return aborted === undefined ? { epoch } : { epoch, aborted };
  }

  /** True while a decided transaction of the id has markers to come. */
  isCompleting(transactionalId: string): boolean {
    return this.#holder(transactionalId).completing.size > 0;
  }

  /** The transaction to write to, begun if need be; undefined: wait, too many before it have markers to come. Throws LOG_WRITER_FENCED. */
  enter(
    transactionalId: string,
    epoch: number,
    nowMs: number,
  ): { readonly transaction: MemoryTransaction; readonly begun: boolean } | undefined {
    const holder = this.#current(transactionalId, epoch);
    if (holder.open !== undefined) return { transaction: holder.open, begun: false };
    if (holder.completing.size > MAX_COMPLETING) return undefined;
    holder.open = { number: ++this.#numbers, transactionalId, epoch, startedAtMs: nowMs };
    return { transaction: holder.open, begun: true };
  }

  /** Decides the open transaction. Throws LOG_WRITER_FENCED when the epoch is old: it was decided by others. */
  end(transactionalId: string, epoch: number): MemoryTransaction | undefined {
    return this.#close(this.#current(transactionalId, epoch));
  }

  /** Ends a transaction that is open for too long: its writer is fenced. False when it is not open any more. */
  expire(transaction: MemoryTransaction): boolean {
    const holder = this.#holder(transaction.transactionalId);
    if (holder.open !== transaction) return false;
    holder.epoch++;
    this.#close(holder);
    return true;
  }

  completed(transaction: MemoryTransaction): void {
    this.#holder(transaction.transactionalId).completing.delete(transaction);
  }

  /** The open transaction with that number. */
  byNumber(number: number): MemoryTransaction | undefined {
    for (const { open, completing } of this.#holders.values()) {
      for (const transaction of open === undefined ? completing : [open, ...completing])
        if (transaction.number === number) return transaction;
    }
    return undefined;
  }

  #close(holder: Holder): MemoryTransaction | undefined {
    const { open } = holder;
    delete holder.open;
    if (open !== undefined) holder.completing.add(open);
    return open;
  }

  #current(transactionalId: string, epoch: number): Holder {
    const holder = this.#holder(transactionalId);
    if (holder.epoch !== epoch) throw writerFenced(transactionalId);
    return holder;
  }

  #holder(transactionalId: string): Holder {
    let holder = this.#holders.get(transactionalId);
    if (holder === undefined) this.#holders.set(transactionalId, (holder = { epoch: -1, completing: new Set() }));
    return holder;
  }
}
