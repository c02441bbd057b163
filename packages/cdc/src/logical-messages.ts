import { CaptureError } from './cdc.errors.js';
import { formatLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { CONTEXT_PREFIX, contextHeaders, invalidMessage, OUTBOX_PREFIX, outboxRecord } from './outbox-message.js';
import type { LogicalMessage } from './pgoutput.js';
import { sourceHeaders } from './rows.js';
import { SIGNAL_PREFIX, WATERMARK_PREFIX } from './snapshot-window.js';
import type { SnapshotWindow } from './snapshot-window.js';
import type { SourceTransaction } from './source-transaction.js';
import type { Sink } from './transaction-assembler.js';

/** Opens a message of ours; undefined when the outbox did not write it. */
export interface MessageOpener {
  open(message: LogicalMessage, xid: number | undefined): Buffer | Promise<Buffer | undefined>;
}

/** What becomes of logical messages: outbox, context of a transaction, marks of a snapshot; others are counted and passed by (P10). */
export class LogicalMessages {
  constructor(
    private readonly sink: Sink,
    private readonly open: SourceTransaction,
    private readonly published: Lsn,
    private readonly window: SnapshotWindow,
    /** Absent: there is no outbox. */
    private readonly outbox: MessageOpener | undefined,
  ) {}

  /** Returns a promise only when it had to ask. */
  accept(message: LogicalMessage, at: string): Promise<void> | undefined {
    const { transactional, prefix } = message;
    if (transactional ? this.open.skipped : beforeLsn(message) <= this.published) return undefined;
    if (prefix === WATERMARK_PREFIX || prefix === SIGNAL_PREFIX) {
      return this.#control(message);
    }
    if (this.outbox === undefined || (prefix !== OUTBOX_PREFIX && prefix !== CONTEXT_PREFIX)) {
      this.sink.ignored();
      return undefined;
    }
    const content = this.outbox.open(message, transactional ? this.open.xid : undefined);
    if (!(content instanceof Promise)) return this.#opened(message, content, at);
    return content.then((late) => this.#opened(message, late, at));
  }

  /** What a mark or a signal brings is a source transaction of its own that ends at its LSN. */
  #control(message: LogicalMessage): Promise<void> | undefined {
    if (message.transactional) {
      this.sink.ignored();
      return undefined;
    }
    return this.#obeyed(() => {
      const { prefix, content, lsn } = message;
      const output = prefix === SIGNAL_PREFIX ? this.window.signal(content, lsn) : this.window.watermark(content, lsn);
      if (output === undefined) return undefined;
      output.emit(this.sink);
      const { snapshots, states } = output;
      this.sink.complete({ commitLsn: beforeLsn(message), endLsn: lsn, xid: 0, snapshots, states });
      return undefined;
    });
  }

  #opened(message: LogicalMessage, content: Buffer | undefined, at: string): Promise<void> | undefined {
    return this.#obeyed(() => {
      if (content === undefined)
        throw invalidMessage(message.prefix, at, 'it does not carry the signature of the outbox');
      if (message.prefix === OUTBOX_PREFIX) return this.#route(message, content, at);
      this.#context(message, content, at);
      return undefined;
    });
  }

  /** Any role may emit a message: one that cannot be obeyed must not stop the others. */
  #obeyed(obey: () => Promise<void> | undefined): Promise<void> | undefined {
    try {
      return obey();
    } catch (error) {
      if (!(error instanceof CaptureError) || error.code !== 'CDC_MESSAGE_INVALID') throw error;
      this.sink.ignored(error);
      return undefined;
    }
  }

  #context(message: LogicalMessage, content: Buffer, at: string): void {
    const { open } = this;
    // Records before it have gone without: half a transaction with a context would mislead more than none.
    if (!message.transactional || open.seq > 0 || open.headers.context !== undefined)
      throw invalidMessage(CONTEXT_PREFIX, at, 'a context must come first in its transaction, once');
    open.context = contextHeaders(content, at);
  }

  #route(message: LogicalMessage, content: Buffer, at: string): Promise<void> | undefined {
    const { open, sink } = this;
    const lsn = formatLsn(message.lsn);
    const source = message.transactional
      ? open.headers
      : sourceHeaders(lsn, `message-${lsn}`, BigInt(Date.now()) * 1_000n);
    const record = outboxRecord(content, source, message.transactional ? open.seq : 0, at);
    const put = () => {
      sink.add(record);
      if (message.transactional) open.added(record.topic, 1);
      else sink.complete({ commitLsn: beforeLsn(message), endLsn: message.lsn, xid: 0 });
    };
    const topic = sink.topic(record.topic);
    if (topic instanceof Promise) return topic.then(put);
    put();
    return undefined;
  }
}

/**
 * The LSN of a message that is not transactional is the end of its record, and the next commit record may begin exactly there: as a commit LSN
 * it would make that transaction look published (P1).
 */
function beforeLsn(message: LogicalMessage): Lsn {
  return (message.lsn - 1n) as Lsn;
}
