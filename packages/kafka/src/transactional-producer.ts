import { refused } from './kafka.errors.js';
import type { Lane } from './lane.js';
import { ProducerEpoch } from './producer-epoch.js';
import { TRANSACTION } from './requests/call.js';
import { apiVersions } from './requests/cluster.js';
import { initProducerId } from './requests/transaction.js';
import type { Wire } from './wire.js';

/** One transactional id at the broker, and the epoch it has there as far as is known. */
export class TransactionalProducer {
  readonly transactionalId: string;
  #current: ProducerEpoch | undefined;

  constructor(transactionalId: string) {
    this.transactionalId = transactionalId;
  }

  /** undefined: to be initialised first. */
  get current(): ProducerEpoch | undefined {
    return this.#current;
  }

  /**
   * Takes a new epoch and resolves when the transaction before is over, its markers included. `anyway` fences every other writer;
   * `unless-taken` is refused when another writer took the id since.
   */
  async initialise(
    how: 'anyway' | 'unless-taken',
    at: { readonly wire: Wire; readonly lane: Lane; readonly timeoutMs: number; readonly deadlineMs: number },
  ): Promise<void> {
    const { transactionalId } = this;
    const current = how === 'unless-taken' ? this.#current : undefined;
    const startedAt = performance.now();
    // Asked for each time: a cluster is upgraded while its clients go on.
    const cluster = await at.wire.anyAnswer(apiVersions(), at);
    if (cluster.error !== 0) throw refused('ApiVersions', cluster.error);
    const call = initProducerId(transactionalId, at.timeoutMs, current);
    const deadlineMs = at.deadlineMs - (performance.now() - startedAt);
    const answer = await at.wire.coordinated(TRANSACTION, transactionalId, call, at.lane, { deadlineMs });
    if (answer.error !== 0) throw refused('InitProducerId', answer.error, { transactionalId });
    this.becomes(answer, cluster.transactionVersion >= 2);
  }

  /** `version2`: as before unless told. */
  becomes(
    next: { readonly producerId: bigint; readonly epoch: number },
    version2 = this.#current?.version2 ?? false,
  ): void {
    this.#current = new ProducerEpoch(next, version2);
  }

  forget(): void {
    this.#current = undefined;
  }
}
