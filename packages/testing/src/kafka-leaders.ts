import { eventually } from './eventually.js';
import {
  electPreferred,
  findCoordinator,
  metadata,
  orderReplicas,
  type ClusterMetadata,
  type CoordinatorKind,
  type PartitionMetadata,
} from './kafka-metadata.js';

/** A broker as the cluster's questions need it. */
export interface AskedNode {
  readonly nodeId: number;
  /** Of the listener for the other brokers: no fault proxy stands in front of it. */
  readonly internalPort: number;
  /** Neither killed, nor stopped, nor paused. */
  readonly awake: boolean;
}

/** Who leads what, as the brokers that are awake say; nothing here waits for anything but their answers. */
export class KafkaLeaders {
  readonly #nodes: readonly AskedNode[];
  readonly #timeoutMs: number;

  constructor(nodes: readonly AskedNode[], timeoutMs: number) {
    this.#nodes = nodes;
    this.#timeoutMs = timeoutMs;
  }

  leaderOf(topic: string, partition: number): Promise<number> {
    return this.#until(async () => (await this.#agreed(topic, partition)).leader);
  }

  async moveLeader(topic: string, partition: number, to?: number): Promise<number> {
    const from = to === undefined ? await this.leaderOf(topic, partition) : undefined;
    return this.#until(async () => {
      const { leader, replicas, inSync } = await this.#agreed(topic, partition);
      if (to === undefined ? leader !== from : leader === to) return leader;
      const next = to ?? inSync.find((nodeId) => nodeId !== leader && this.#isAwake(nodeId));
      if (next === undefined)
        throw new Error(`${topic}/${partition}: no other replica is in sync (${inSync.join(', ')})`);
      const port = this.#awake()[0]!.internalPort;
      await orderReplicas(port, topic, partition, [next, ...replicas.filter((nodeId) => nodeId !== next)]);
      await electPreferred(port, topic, partition);
      throw new Error(`${topic}/${partition} is still led by ${leader}`);
    });
  }

  /** Asked by name, so that the coordinator's partitions are made by the first question. */
  coordinator(kind: CoordinatorKind, key: string): Promise<number> {
    return this.#until(async () => {
      const [first, ...rest] = await Promise.all(
        this.#awake().map(({ internalPort }) => findCoordinator(internalPort, kind, key)),
      );
      if (first === undefined || !this.#isAwake(first) || rest.some((other) => other !== first))
        throw new Error(`the ${kind} coordinator of ${key} is not agreed on: ${[first, ...rest].join(', ')}`);
      return first;
    });
  }

  async moveCoordinator(kind: CoordinatorKind, key: string, to?: number): Promise<number> {
    await this.coordinator(kind, key);
    const topic = kind === 'group' ? '__consumer_offsets' : '__transaction_state';
    const partitions = await this.#until(async () => this.#known(await this.#ask(topic), topic).length);
    const leader = await this.moveLeader(topic, javaHash(key) % partitions, to);
    return this.#until(async () => {
      const found = await this.coordinator(kind, key);
      if (found !== leader) throw new Error(`the ${kind} coordinator of ${key} is ${found}, not yet ${leader}`);
      return found;
    });
  }

  /** Resolves when every broker is among the living and every replica of the topics is in sync. */
  async inSync(topics: readonly string[]): Promise<void> {
    await this.#until(async () => {
      for (const { internalPort } of this.#nodes) {
        const seen = await metadata(internalPort, topics);
        if (seen.brokers.length < this.#nodes.length) throw new Error(`living brokers: ${seen.brokers.join(', ')}`);
        for (const topic of topics)
          for (const [partition, of] of this.#known(seen, topic).entries())
            if (of.leader < 0 || of.inSync.length < of.replicas.length)
              throw new Error(`${topic}/${partition}: leader ${of.leader}, in sync ${of.inSync.join(', ')}`);
      }
    });
  }

  /** One partition as all brokers that are awake see it, with a leader among them. */
  async #agreed(topic: string, partition: number): Promise<PartitionMetadata> {
    const views = await Promise.all(
      this.#awake().map(
        async ({ internalPort }) => this.#known(await metadata(internalPort, [topic]), topic)[partition],
      ),
    );
    const first = views[0];
    if (first === undefined || views.some((view) => view?.leader !== first.leader) || !this.#isAwake(first.leader))
      throw new Error(`${topic}/${partition}: no agreed leader: ${views.map((view) => view?.leader).join(', ')}`);
    return first;
  }

  #ask(topic: string): Promise<ClusterMetadata> {
    return metadata(this.#awake()[0]!.internalPort, [topic]);
  }

  #known(seen: ClusterMetadata, topic: string): readonly PartitionMetadata[] {
    const partitions = seen.topics.get(topic);
    if (partitions === undefined) throw new Error(`there is no topic ${topic}`);
    return partitions;
  }

  #awake(): readonly AskedNode[] {
    const awake = this.#nodes.filter((node) => node.awake);
    if (awake.length === 0) throw new Error('no broker is awake');
    return awake;
  }

  #isAwake(nodeId: number): boolean {
    return this.#nodes.some((node) => node.nodeId === nodeId && node.awake);
  }

  #until<T>(attempt: () => Promise<T>): Promise<T> {
    return eventually(attempt, { timeoutMs: this.#timeoutMs, intervalMs: 20 });
  }
}

/** How Kafka finds the partition of a group or a transactional id: the absolute value of String.hashCode. */
export function javaHash(text: string): number {
  let hash = 0;
  for (let i = 0; i < text.length; i++) hash = (Math.imul(31, hash) + text.charCodeAt(i)) | 0;
  // Java's smallest integer has no absolute value; Kafka takes 0.
  return hash === -(2 ** 31) ? 0 : Math.abs(hash);
}
