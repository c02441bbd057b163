import type { OutRecord, PartitionOffset } from '@headwater/core';
import type { Connection } from './connection.js';
import type { MemoryCluster } from './memory-cluster.js';
import { closed } from './refusals.js';

/** Plain sends, one after the other, each whole. */
export class MemoryProducer {
  readonly #cluster: MemoryCluster;
  readonly #connection: Connection;
  readonly #stoppable = { order: 1, stop: () => this.close() } as const;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(cluster: MemoryCluster, connection: Connection) {
    this.#cluster = cluster;
    this.#connection = connection;
    connection.adopt(this.#stoppable);
  }

  send(records: readonly OutRecord[]): Promise<readonly PartitionOffset[]> {
    if (this.#closed) return Promise.reject(closed());
    const sent = this.#tail.then(() =>
      this.#connection.request({ request: 'send' }, () => this.#cluster.send(records)),
    );
    this.#tail = sent.catch(() => undefined);
    return sent;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#connection.dismiss(this.#stoppable);
    await this.#tail;
  }
}
