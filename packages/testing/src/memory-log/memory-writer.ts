import type {
  GroupOffsets,
  LogInput,
  LogTransaction,
  LogWriter,
  Outcome,
  PartitionOffset,
  WriterOptions,
} from '@headwater/core';
import { errorCode, HeadwaterError, isRun } from '@headwater/core';
import type { LearntLimits } from './batches.js';
import type { Connection } from './connection.js';
import type { MemoryCluster, WriterIdentity } from './memory-cluster.js';
import { closed, transactionAborted, transactionOver, writerBusy, writerNotReady } from './refusals.js';
import type { Ending } from './transaction-coordinator.js';

export class MemoryWriter implements LogWriter {
  readonly transactionalId: string;
  readonly #cluster: MemoryCluster;
  readonly #connection: Connection;
  readonly #limits: LearntLimits;
  readonly #timeoutMs: number;
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;
  #identity: WriterIdentity | undefined;
  #open: MemoryWriterTransaction | undefined;
  #closed = false;

  constructor(cluster: MemoryCluster, connection: Connection, limits: LearntLimits, options: WriterOptions) {
    this.#cluster = cluster;
    this.#connection = connection;
    this.#limits = limits;
    this.transactionalId = options.transactionalId;
    this.#timeoutMs = options.transactionTimeoutMs ?? 8_000;
    connection.adopt(this.#stoppable);
  }

  async fence(): Promise<void> {
    if (this.#closed) throw closed();
    this.#identity = undefined;
    this.#open = undefined;
    const { transactionalId } = this;
    const epoch = await this.#connection.ask({ request: 'fence', transactionalId }, this.#cluster.logChanged, () =>
      this.#cluster.fence(transactionalId),
    );
    if (this.#closed) throw closed();
    this.#identity = { transactionalId, epoch, timeoutMs: this.#timeoutMs };
  }

  begin(): LogTransaction {
    return this.#begin();
  }

  async transact(records: readonly LogInput[], offsets?: GroupOffsets): Promise<Outcome> {
    const transaction = this.#begin();
    // Not awaited: records and offsets go out together; commit waits for both.
    transaction.append(records).catch(() => undefined);
    return transaction.commit(offsets);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.dismiss(this.#stoppable);
    await this.#open?.abort(closed());
    this.#identity = undefined;
  }

  #begin(): MemoryWriterTransaction {
    const failure = this.#closed
      ? closed()
      : this.#open !== undefined
        ? writerBusy(this.transactionalId)
        : this.#identity === undefined
          ? writerNotReady(this.transactionalId)
          : undefined;
    const ended = (fit: boolean) => {
      if (this.#open !== transaction) return;
      this.#open = undefined;
      if (!fit) this.#identity = undefined;
    };
    const at = { cluster: this.#cluster, connection: this.#connection, limits: this.#limits };
    const transaction = new MemoryWriterTransaction(at, this.#identity, ended, failure);
    if (failure === undefined) this.#open = transaction;
    return transaction;
  }
}

class MemoryWriterTransaction implements LogTransaction {
  readonly #cluster: MemoryCluster;
  readonly #connection: Connection;
  readonly #limits: LearntLimits;
  readonly #writer: WriterIdentity | undefined;
  /** Tells the writer that this is over, and whether it can go on without a fence. */
  readonly #ended: (fit: boolean) => void;
  readonly #appended = new Map<string, PartitionOffset>();
  #failure: { readonly cause: unknown } | undefined;
  #tail: Promise<void> = Promise.resolve();
  /** The log may have heard of this transaction. */
  #entered = false;
  #over = false;

  constructor(
    at: { readonly cluster: MemoryCluster; readonly connection: Connection; readonly limits: LearntLimits },
    writer: WriterIdentity | undefined,
    ended: (fit: boolean) => void,
    failure: Error | undefined,
  ) {
    this.#cluster = at.cluster;
    this.#connection = at.connection;
    this.#limits = at.limits;
    this.#writer = writer;
    this.#ended = ended;
    if (failure !== undefined) this.#failure = { cause: failure };
  }

  append(inputs: readonly LogInput[]): Promise<void> {
    if (this.#over) return Promise.reject(transactionOver());
    const copies = inputs.map(copied);
    const appended = this.#tail.then(async () => {
      if (this.#failure !== undefined) throw this.#failure.cause;
      if (copies.length === 0) return;
      try {
        await this.#append(copies);
      } catch (cause) {
        this.#learn(cause);
        this.#failure ??= { cause };
        throw cause;
      }
    });
    this.#tail = appended.catch(() => undefined);
    return appended;
  }

  async commit(offsets?: GroupOffsets): Promise<Outcome> {
    if (this.#over) return { outcome: 'aborted', cause: transactionOver() };
    this.#over = true;
    const withOffsets = offsets !== undefined && offsets.offsets.length > 0 && this.#failure === undefined;
    const adding = withOffsets
      ? this.#addOffsets(offsets).catch((cause: unknown) => void (this.#failure ??= { cause }))
      : undefined;
    await Promise.all([this.#tail, adding]);
    if (this.#failure !== undefined) return this.#abort(this.#failure.cause);
    return this.#end('commit');
  }

  async abort(cause?: unknown): Promise<Outcome> {
    if (this.#over) return { outcome: 'aborted', cause: transactionOver() };
    this.#over = true;
    await this.#tail;
    return this.#abort(cause ?? this.#failure?.cause ?? transactionAborted());
  }

  #abort(cause: unknown): Promise<Outcome> | Outcome {
    const fenced = fencedWho(this.#failure?.cause);
    if (fenced !== 'writer') return this.#end('abort', cause, fenced);
    this.#ended(false);
    return { outcome: 'aborted', cause, fenced };
  }

  async #end(how: Ending, cause?: unknown, fenced?: 'member'): Promise<Outcome> {
    try {
      const writer = this.#writer;
      if (this.#entered && writer !== undefined) {
        const call = { request: how, transactionalId: writer.transactionalId } as const;
        await this.#connection.request(call, () => this.#cluster.end(writer, how));
      }
    } catch (error) {
      this.#ended(false);
      if (fencedWho(error) !== 'writer') return { outcome: 'unknown', cause: error };
      return { outcome: 'aborted', cause: cause ?? error, fenced: 'writer' };
    }
    this.#ended(true);
    if (how === 'commit') return { outcome: 'committed', appended: [...this.#appended.values()] };
    return { outcome: 'aborted', cause, ...(fenced && { fenced }) };
  }

  #learn(cause: unknown): void {
    if (!(cause instanceof HeadwaterError) || cause.code !== 'LOG_BATCH_TOO_LARGE') return;
    this.#limits.learn(String(cause.facts['topic']), Number(cause.facts['limit']));
  }

  async #append(inputs: readonly LogInput[]): Promise<void> {
    const writer = this.#writer!;
    const call = { request: 'append', transactionalId: writer.transactionalId } as const;
    this.#entered = true;
    const appended = await this.#connection.ask(call, this.#cluster.logChanged, () =>
      this.#cluster.append(writer, inputs, this.#limits),
    );
    for (const of of appended) this.#appended.set(`${of.topic}/${of.partition}`, of);
  }

  async #addOffsets({ membership, offsets }: GroupOffsets): Promise<void> {
    const writer = this.#writer!;
    const { groupId, memberId } = membership;
    const call = { request: 'offsets', transactionalId: writer.transactionalId, groupId } as const;
    this.#entered = true;
    for (;;) {
      // As sent: a late request is of the generation of its time.
      const { generation } = membership;
      const now = { groupId, memberId, generation };
      try {
        await this.#connection.ask(call, this.#cluster.logChanged, () =>
          this.#cluster.addOffsets(writer, now, offsets),
        );
        return;
      } catch (cause) {
        if (fencedWho(cause) !== 'member' || (await membership.renewed?.(generation)) !== true) throw cause;
      }
    }
  }
}

/** A run is copied: its bytes are used again, and a lost request may arrive late. */
function copied(input: LogInput): LogInput {
  return isRun(input) ? { ...input, bytes: Buffer.from(input.bytes) } : input;
}

function fencedWho(cause: unknown): 'writer' | 'member' | undefined {
  const code = errorCode(cause);
  if (code === 'LOG_WRITER_FENCED' || code === 'LOG_WRITER_NOT_READY') return 'writer';
  return code === 'LOG_MEMBER_FENCED' ? 'member' : undefined;
}
