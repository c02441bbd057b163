import { ResponseReader, compact, int32, int8, kafkaRequest, string } from './kafka-request.js';

export interface PartitionMetadata {
  /** -1: none. */
  readonly leader: number;
  /** The preferred leader comes first. */
  readonly replicas: readonly number[];
  readonly inSync: readonly number[];
}

export interface ClusterMetadata {
  /** The living brokers, as this broker sees them. */
  readonly brokers: readonly number[];
  /** By partition; a topic that does not exist is absent. */
  readonly topics: ReadonlyMap<string, readonly PartitionMetadata[]>;
}

/** What the broker on this port knows of the cluster and of these topics. */
export async function metadata(port: number, topics: readonly string[]): Promise<ClusterMetadata> {
  const body = Buffer.concat([int32(topics.length), ...topics.map(string)]);
  const response = new ResponseReader(await kafkaRequest(port, { apiKey: 3, version: 1, flexible: false, body }));
  const brokers = response.array(() => {
    const nodeId = response.int32();
    response.string(); // host
    response.int32(); // port
    response.string(); // rack
    return nodeId;
  });
  response.int32(); // controller
  const found = response.array(() => {
    response.int16(); // error
    const topic = response.string();
    response.int8(); // internal
    const partitions = response.array((): [number, PartitionMetadata] => {
      response.int16(); // error
      const partition = response.int32();
      const leader = response.int32();
      const replicas = response.array(() => response.int32());
      return [partition, { leader, replicas, inSync: response.array(() => response.int32()) }];
    });
    return [topic, partitions.sort(([a], [b]) => a - b).map(([, of]) => of)] as const;
  });
  return { brokers, topics: new Map(found.filter(([, partitions]) => partitions.length > 0)) };
}

export type CoordinatorKind = 'group' | 'transaction';

/** The coordinator's node id; -1 while there is none. */
export async function findCoordinator(port: number, kind: CoordinatorKind, key: string): Promise<number> {
  const body = Buffer.concat([string(key), int8(kind === 'group' ? 0 : 1)]);
  const response = new ResponseReader(await kafkaRequest(port, { apiKey: 10, version: 1, flexible: false, body }));
  response.int32(); // throttled
  const error = response.int16();
  response.string(); // message
  return error === 0 ? response.int32() : -1;
}

/** Makes the first of `replicas` the preferred leader; they must be those the partition has. */
export async function orderReplicas(
  port: number,
  topic: string,
  partition: number,
  replicas: readonly number[],
): Promise<void> {
  const noTags = int8(0);
  const name = Buffer.from(topic);
  const partitions = [compact(1), int32(partition), compact(replicas.length), ...replicas.map(int32), noTags];
  const topics = [compact(1), compact(name.length), name, ...partitions, noTags];
  const body = Buffer.concat([int32(5_000), ...topics, noTags]);
  await kafkaRequest(port, { apiKey: 45, version: 0, flexible: true, body });
}

/** Asks for the preferred leader to be elected. The answer is not read: Metadata tells whether it was. */
export async function electPreferred(port: number, topic: string, partition: number): Promise<void> {
  const preferred = int8(0);
  const body = Buffer.concat([preferred, int32(1), string(topic), int32(1), int32(partition), int32(5_000)]);
  await kafkaRequest(port, { apiKey: 43, version: 1, flexible: false, body }, 6_000);
}
