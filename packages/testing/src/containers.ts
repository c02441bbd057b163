import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from './free-port.js';
import { kafkaAnswers } from './kafka-answers.js';
import { FIXED_SETTINGS } from './kafka-settings.js';
import { identify, isAlive } from './process-identity.js';
import type { ServerHandle } from './server-process.js';
import { ServicesError } from './testing.errors.js';

export interface ContainerOptions {
  /** Names the containers of one set of services; leftovers of a killed parent are found by it. */
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly settings?: Readonly<Record<string, string>>;
}

/** Postgres in a container on a loopback port. Its data goes with the container. */
export async function startPostgresContainer(
  options: ContainerOptions,
): Promise<{ readonly url: string; readonly server: ServerHandle }> {
  const port = await freePort();
  const settings = { wal_level: 'logical', max_wal_senders: '30', max_replication_slots: '30', ...options.settings };
  const server = await startContainer({
    ...options,
    image: options.env['HEADWATER_POSTGRES_IMAGE'] || 'postgres:18',
    role: 'postgres',
    containerPort: 5432,
    port,
    environment: { POSTGRES_PASSWORD: 'headwater', POSTGRES_DB: 'headwater' },
    command: ['postgres', ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    ready: () => postgresAnswers(port),
  });
  return { url: `postgres://postgres:headwater@127.0.0.1:${port}/headwater`, server };
}

/** Kafka in a container that advertises its port on this machine. */
export async function startKafkaContainer(
  options: ContainerOptions,
): Promise<{ readonly brokers: string[]; readonly server: ServerHandle }> {
  const port = await freePort();
  const settings = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': '1@localhost:9093',
    listeners: 'PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:9093',
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    ...FIXED_SETTINGS,
    ...options.settings,
  };
  const environment = Object.fromEntries(
    Object.entries(settings).map(([name, value]) => [`KAFKA_${name.toUpperCase().replaceAll('.', '_')}`, value]),
  );
  const server = await startContainer({
    ...options,
    image: options.env['HEADWATER_KAFKA_IMAGE'] || 'apache/kafka:4.1.1',
    role: 'kafka',
    containerPort: 9092,
    port,
    environment: { ...environment, KAFKA_HEAP_OPTS: '-Xmx384m' },
    ready: () => kafkaAnswers(port),
  });
  return { brokers: [`127.0.0.1:${port}`], server };
}

const LABEL = 'headwater.services';

interface ContainerSpec extends ContainerOptions {
  readonly image: string;
  readonly role: 'postgres' | 'kafka';
  readonly containerPort: number;
  readonly port: number;
  readonly environment: Record<string, string>;
  readonly command?: string[];
  readonly ready: () => Promise<boolean>;
}

async function startContainer(spec: ContainerSpec): Promise<ServerHandle> {
  // Its helper image cannot be pulled everywhere; the sweep below does the helper's work. Read by the library at import.
  process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true';
  const { GenericContainer, getContainerRuntimeClient, Wait } = await import('testcontainers');
  const docker = (await getContainerRuntimeClient()).container.dockerode;
  for (const left of await docker.listContainers({ all: true, filters: { label: [`${LABEL}.role=${spec.role}`] } })) {
    const pid = Number(left.Labels[`${LABEL}.pid`]);
    const startTime = left.Labels[`${LABEL}.start`] ?? '';
    if (!isAlive({ pid, startTime })) await docker.getContainer(left.Id).remove({ force: true, v: true });
  }
  const owner = identify(process.pid);
  const loopbackOnly = class extends GenericContainer {
    protected override async beforeContainerCreated(): Promise<void> {
      this.hostConfig.PortBindings = {
        [`${spec.containerPort}/tcp`]: [{ HostIp: '127.0.0.1', HostPort: String(spec.port) }],
      };
    }
  };
  const container = new loopbackOnly(spec.image)
    .withExposedPorts({ container: spec.containerPort, host: spec.port })
    .withEnvironment(spec.environment)
    .withLabels({
      [`${LABEL}.role`]: spec.role,
      [`${LABEL}.pid`]: String(owner?.pid ?? 0),
      [`${LABEL}.start`]: owner?.startTime ?? '',
    })
    .withWaitStrategy(Wait.forListeningPorts())
    .withStartupTimeout(120_000);
  const started = await (spec.command ? container.withCommand(spec.command) : container).start();
  const raw = docker.getContainer(started.getId());
  const handle: ServerHandle = {
    pid: undefined,
    port: spec.port,
    async stop() {
      await raw.remove({ force: true, v: true }).catch(ignoreGone);
    },
    async kill() {
      await raw.kill().catch(ignoreGone);
      await raw.wait();
    },
    async start() {
      await raw.start().catch(ignoreGone);
      await untilReady(spec);
    },
  };
  try {
    await untilReady(spec);
  } catch (error) {
    await handle.stop();
    throw error;
  }
  return handle;
}

async function untilReady(spec: ContainerSpec): Promise<void> {
  const deadline = performance.now() + 120_000;
  while (!(await spec.ready())) {
    if (performance.now() > deadline) {
      throw new ServicesError(
        'SERVICES_START_FAILED',
        `${spec.image} did not answer on 127.0.0.1:${spec.port} in 120 s.`,
      );
    }
    await delay(50);
  }
}

/** Docker answers 304 for "already so", 404 and 409 for a container that is gone or not running. */
function ignoreGone(error: unknown): void {
  const { statusCode } = error as { statusCode?: number };
  if (statusCode !== 304 && statusCode !== 404 && statusCode !== 409) throw error;
}

/** A server that answers an SSL request speaks the protocol; one in its first initialisation does not listen on TCP yet. */
function postgresAnswers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(Buffer.from('0000000804d2162f', 'hex')));
    const settle = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(2000, () => settle(false));
    socket.on('data', () => settle(true));
    socket.on('error', () => settle(false));
    socket.on('close', () => settle(false));
  });
}
