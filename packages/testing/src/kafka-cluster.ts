import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { faultProxy, type FaultProxy } from './fault-proxy.js';
import { freePorts } from './free-port.js';
import { KAFKA_VERSIONS } from './kafka-distribution.js';
import { installKafka } from './kafka-installation.js';
import { KafkaLeaders } from './kafka-leaders.js';
import { KAFKA_PID_FILE, kafkaNode } from './kafka-node.js';
import { nodeSettings } from './kafka-settings.js';
import { endOrphan } from './pid-file.js';
import { identify } from './process-identity.js';
import type { ServerHandle } from './server-process.js';
import { uniqueName } from './unique-name.js';

export interface KafkaClusterOptions {
  /** Three: replication factor 3, two in sync at least. */
  readonly brokers: 1 | 3;
  /** Any release that Maven Central has; see KAFKA_VERSIONS. Default: the one that devServices runs. */
  readonly version?: string;
  /** Broker properties that replace the defaults, on every broker; as a function where they name its ports. */
  readonly settings?: Readonly<Record<string, string>> | ((at: KafkaPorts) => Readonly<Record<string, string>>);
  /** What the brokers advertise to clients: themselves, or the fault proxy in front of them. Default `brokers`. */
  readonly advertise?: 'brokers' | 'proxy';
  /** Most heap of each broker, in MB. Raise it for loads of more than some MB/s. Default 160. */
  readonly heapMb?: number;
  /** Environment to read and to hand to the brokers. Default: that of this process. */
  readonly env?: NodeJS.ProcessEnv;
  /** Progress, one line at a time. Default: silent. */
  readonly log?: (line: string) => void;
}

/** One broker. `port` is that of its client listener. */
export interface KafkaNode extends ServerHandle {
  readonly nodeId: number;
  /** SIGSTOP: connections stay, nothing is answered. Its leaderships move when its session ends. */
  pause(): void;
  resume(): void;
}

/** Brokers of one cluster. What moves leaders resolves when all brokers that are awake say so. */
export interface KafkaCluster {
  /** Where clients begin, each as host:port: the brokers, or the proxy when that is advertised. */
  readonly brokers: readonly string[];
  readonly nodes: readonly KafkaNode[];
  /** In front of every broker's client listener, in the order of `nodes`; what brokers say to each other never passes it. */
  readonly proxy: FaultProxy;
  /** The broker with this id. */
  node(nodeId: number): KafkaNode;
  /** The node id of the leader, once one that is awake is agreed on. */
  leaderOf(topic: string, partition: number): Promise<number>;
  /** Makes `to`, or any other replica in sync, the leader; resolves with its node id. */
  moveLeader(topic: string, partition: number, to?: number): Promise<number>;
  transactionCoordinator(transactionalId: string): Promise<number>;
  moveTransactionCoordinator(transactionalId: string, to?: number): Promise<number>;
  groupCoordinator(groupId: string): Promise<number>;
  moveGroupCoordinator(groupId: string, to?: number): Promise<number>;
  /** Starts and resumes what is not awake; resolves when every replica of the topics is in sync. */
  heal(topics: readonly string[]): Promise<void>;
  /** Ends the brokers and removes their data; may be called twice. */
  stop(): Promise<void>;
}

/**
 * An embedded Kafka cluster (KRaft, every node broker and controller) on loopback, for tests that kill, pause and move. Resolves when all
 * brokers serve. The brokers end with this process; what a killed process left is ended and removed by the next call.
 */
export async function kafkaCluster(options: KafkaClusterOptions): Promise<KafkaCluster> {
  const env = options.env ?? process.env;
  await removeLeftovers();
  const installation = await installKafka(
    env,
    options.version ?? KAFKA_VERSIONS.default,
    options.log ?? (() => undefined),
  );
  const directory = uniqueName(join(CLUSTERS, String(process.pid)));
  mkdirSync(directory, { recursive: true });
  const addresses = await nodeAddresses(options.brokers);
  const proxy = await faultProxy({
    target: addresses.map(({ port }) => ({ host: '127.0.0.1', port })),
    protocol: 'kafka',
  });
  const voters = addresses.map(({ nodeId, controllerPort }) => [nodeId, controllerPort] as const);
  const nodes = await Promise.all(
    addresses.map(async (at, index) => {
      const data = join(directory, String(at.nodeId), 'data');
      const settings = {
        ...nodeSettings({ ...at, data, voters }),
        ...listeners(at, options.advertise === 'proxy' ? proxy.ports[index]! : at.port),
        ...(options.brokers === 3 ? REPLICATED : {}),
        ...(typeof options.settings === 'function' ? options.settings(at) : options.settings),
      };
      await installation.format(data, at.nodeId);
      const jvmFlags = [...installation.jvmFlags, `-Xmx${options.heapMb ?? 160}m`];
      const spec = { ...installation, jvmFlags, ...at, directory: join(directory, String(at.nodeId)), settings, env };
      return Object.assign(kafkaNode(spec), { nodeId: at.nodeId, internalPort: at.internalPort });
    }),
  );
  const stop = async (): Promise<void> => {
    await proxy.close();
    // Killed: the data goes with them, and a clean stop of two of three waits for leaders that cannot move.
    await Promise.all(nodes.map((node) => node.kill()));
    rmSync(directory, { recursive: true, force: true });
  };
  const leaders = new KafkaLeaders(nodes, 60_000);
  const started = await Promise.allSettled(nodes.map((node) => node.start()));
  try {
    for (const one of started) if (one.status === 'rejected') throw one.reason;
    await leaders.inSync([]);
  } catch (error) {
    // A cluster that is half there would outlive the error.
    await stop();
    throw error;
  }
  const ports = options.advertise === 'proxy' ? proxy.ports : addresses.map(({ port }) => port);
  return {
    brokers: ports.map((port) => `127.0.0.1:${port}`),
    nodes,
    proxy,
    node(nodeId) {
      const found = nodes.find((node) => node.nodeId === nodeId);
      if (found === undefined) throw new Error(`There is no broker ${nodeId}.`);
      return found;
    },
    leaderOf: (topic, partition) => leaders.leaderOf(topic, partition),
    moveLeader: (topic, partition, to) => leaders.moveLeader(topic, partition, to),
    transactionCoordinator: (id) => leaders.coordinator('transaction', id),
    moveTransactionCoordinator: (id, to) => leaders.moveCoordinator('transaction', id, to),
    groupCoordinator: (id) => leaders.coordinator('group', id),
    moveGroupCoordinator: (id, to) => leaders.moveCoordinator('group', id, to),
    async heal(topics) {
      for (const node of nodes) if (!node.awake) node.resume();
      await Promise.all(nodes.map((node) => node.start()));
      await leaders.inSync(topics);
    },
    stop,
  };
}

/** Loopback ports of one broker: for clients, for other brokers, for controllers. */
export interface KafkaPorts {
  readonly nodeId: number;
  readonly port: number;
  readonly internalPort: number;
  readonly controllerPort: number;
}

async function nodeAddresses(brokers: number): Promise<KafkaPorts[]> {
  const ports = await freePorts(Array.from({ length: brokers * 3 }, () => undefined));
  return Array.from({ length: brokers }, (_, index) => {
    const [port = 0, internalPort = 0, controllerPort = 0] = ports.slice(index * 3);
    return { nodeId: index + 1, port, internalPort, controllerPort };
  });
}

function listeners(at: KafkaPorts, advertised: number): Record<string, string> {
  return {
    listeners: `PLAINTEXT://127.0.0.1:${at.port},INTERNAL://127.0.0.1:${at.internalPort},CONTROLLER://127.0.0.1:${at.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${advertised},INTERNAL://127.0.0.1:${at.internalPort}`,
    'inter.broker.listener.name': 'INTERNAL',
  };
}

/** Loaded machines are slow to send heartbeats: a session that ends by itself would be a fault nobody asked for. */
const REPLICATED: Readonly<Record<string, string>> = {
  'broker.session.timeout.ms': '3000',
  'broker.heartbeat.interval.ms': '300',
  'controller.quorum.election.timeout.ms': '500',
  'controller.quorum.fetch.timeout.ms': '2000',
  'default.replication.factor': '3',
  'min.insync.replicas': '2',
  'offsets.topic.replication.factor': '3',
  'transaction.state.log.replication.factor': '3',
  'transaction.state.log.min.isr': '2',
  'replica.lag.time.max.ms': '5000',
  'leader.imbalance.check.interval.seconds': '3600',
};

const CLUSTERS = join(tmpdir(), 'headwater-clusters');

/** Ends and removes the clusters of processes that are gone. */
async function removeLeftovers(): Promise<void> {
  mkdirSync(CLUSTERS, { recursive: true });
  for (const name of readdirSync(CLUSTERS)) {
    if (identify(Number(name.split('_')[0]))) continue;
    const directory = join(CLUSTERS, name);
    for (const node of readdirSync(directory))
      await endOrphan(join(directory, node, KAFKA_PID_FILE), { signal: 'SIGKILL' });
    rmSync(directory, { recursive: true, force: true });
  }
}
