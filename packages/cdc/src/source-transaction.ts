import type { Header, OutRecord } from '@headwater/core';
import { formatLsn, ZERO_LSN } from './lsn.js';
import type { Lsn } from './lsn.js';
import { EPOCH_MICROS } from './pgoutput.js';
import { sourceHeaders } from './rows.js';
import type { SourceHeaders } from './rows.js';
import { SourceBlock } from './source-block.js';
import type { TransactionLog } from './transaction-log.js';

/** The source transaction that is being read; used again for the next one. */
export class SourceTransaction {
  isOpen = false;
  finalLsn: Lsn = ZERO_LSN;
  xid = 0;
  /** Published before: P1 skips all of it. */
  skipped = false;
  /** Records and messages of it so far. */
  seq = 0;
  #micros = 0n;
  readonly #block = new SourceBlock();
  #isBlockSet = false;
  #headers: SourceHeaders | undefined;

  /** Absent: nothing is told of transactions. */
  constructor(private readonly log?: TransactionLog) {}

  /** `micros`: of its commit, since 2000. */
  begin(finalLsn: Lsn, xid: number, micros: bigint, skipped: boolean): void {
    this.isOpen = true;
    this.finalLsn = finalLsn;
    this.xid = xid;
    this.skipped = skipped;
    this.seq = 0;
    this.#micros = micros;
    this.#isBlockSet = false;
    this.#headers = undefined;
    this.log?.begin();
  }

  /** So many records of it were added to the topic. */
  added(topic: string, records: number): void {
    this.seq += records;
    this.log?.count(topic, records);
  }

  /** What is told at its end, if anything. */
  end(): OutRecord | undefined {
    return this.log?.end(this.headers);
  }

  /** Its headers as bytes, made when its first row needs them. */
  get block(): SourceBlock {
    if (!this.#isBlockSet) {
      this.#block.setTransaction(this.finalLsn, this.xid, this.#micros);
      this.#block.setContext(this.#headers?.context ?? []);
      this.#isBlockSet = true;
    }
    return this.#block;
  }

  /** Its headers one by one. */
  get headers(): SourceHeaders {
    return (this.#headers ??= sourceHeaders(formatLsn(this.finalLsn), String(this.xid), this.#micros + EPOCH_MICROS));
  }

  set context(context: readonly Header[]) {
    this.#headers = { ...this.headers, context };
    this.#isBlockSet = false;
  }
}
