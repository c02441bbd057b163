/** Where one node of a cluster listens, and where its data is. */
export interface NodeAddresses {
  readonly nodeId: number;
  readonly port: number;
  readonly controllerPort: number;
  readonly data: string;
  /** Node id and controller port of every node. Default: this one alone. */
  readonly voters?: readonly (readonly [nodeId: number, controllerPort: number])[];
}

/** The settings of a node that is broker and controller. */
export function nodeSettings(at: NodeAddresses): Record<string, string> {
  const voters = at.voters ?? [[at.nodeId, at.controllerPort]];
  return {
    'process.roles': 'broker,controller',
    'node.id': String(at.nodeId),
    'controller.quorum.voters': voters.map(([nodeId, port]) => `${nodeId}@127.0.0.1:${port}`).join(','),
    listeners: `PLAINTEXT://127.0.0.1:${at.port},CONTROLLER://127.0.0.1:${at.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${at.port}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': at.data,
    ...FIXED_SETTINGS,
  };
}

/** Small, quick to start, quick to notice its own former life after kill -9 (see broker.session.timeout.ms). */
export const FIXED_SETTINGS: Readonly<Record<string, string>> = {
  'broker.session.timeout.ms': '1500',
  'broker.heartbeat.interval.ms': '200',
  'controller.quorum.election.timeout.ms': '200',
  'controller.quorum.election.backoff.max.ms': '200',
  'controller.quorum.fetch.timeout.ms': '1000',
  'offsets.topic.replication.factor': '1',
  'offsets.topic.num.partitions': '4',
  'transaction.state.log.replication.factor': '1',
  'transaction.state.log.min.isr': '1',
  'transaction.state.log.num.partitions': '4',
  'share.coordinator.state.topic.replication.factor': '1',
  'share.coordinator.state.topic.min.isr': '1',
  'share.coordinator.state.topic.num.partitions': '1',
  'group.initial.rebalance.delay.ms': '0',
  'group.min.session.timeout.ms': '1000',
  'auto.create.topics.enable': 'false',
  'num.partitions': '4',
  'num.network.threads': '2',
  'num.io.threads': '4',
  'num.replica.fetchers': '1',
  'log.cleaner.dedupe.buffer.size': '2097152',
  'log.cleaner.backoff.ms': '500',
  'log.initial.task.delay.ms': '1000',
  'transaction.partition.verification.enable': 'true',
  'transaction.abort.timed.out.transaction.cleanup.interval.ms': '1000',
};

export function toProperties(settings: Readonly<Record<string, string>>): string {
  // A backslash is the escape character of the format (Windows paths).
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value.replaceAll('\\', '\\\\')}\n`)
    .join('');
}
