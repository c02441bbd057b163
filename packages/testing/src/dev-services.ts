import { mkdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { chooseServices, parseServicesMode, type ServicesChoice, type ServicesMode } from './choose-services.js';
import { containerEngine } from './container-engine.js';
import { startEmbeddedKafka } from './embedded-kafka.js';
import { startEmbeddedPostgres } from './embedded-postgres.js';
import { missingForKafka } from './kafka-distribution.js';
import { endOrphan } from './pid-file.js';
import { missingForPostgres } from './postgres-binaries.js';
import type { ServerHandle } from './server-process.js';

export interface DevServicesOptions {
  /** Data, logs and pid files of the embedded servers, e.g. `.headwater/dev`. Created when absent. */
  readonly directory: string;
  /** Where the servers come from. Default: `HEADWATER_SERVICES` of `env`, else `auto`. */
  readonly mode?: 'auto' | ServicesMode;
  /** Wipes the directory first. Default false. */
  readonly fresh?: boolean;
  /** Environment to read and to hand to the servers. Default: that of this process. */
  readonly env?: NodeJS.ProcessEnv;
  /** `auto` then chooses containers over embedded when an engine answers; tests do. Default false. */
  readonly preferContainers?: boolean;
  /** Progress, one line at a time. Default: silent. */
  readonly log?: (line: string) => void;
  /** Postgres settings that replace the defaults. */
  readonly postgresSettings?: Readonly<Record<string, string>>;
  /** Broker properties that replace the defaults (embedded only), e.g. `advertised.listeners` with a fault proxy in front. */
  readonly kafkaSettings?: Readonly<Record<string, string>>;
  /** Flags of the broker's JVM (embedded only), behind the default ones, which are for a quick start and little memory: the last of a flag wins. */
  readonly kafkaJvmFlags?: readonly string[];
}

export interface DevServices {
  /** How the servers were obtained; when one is external and one was started, how the latter was. */
  readonly mode: ServicesMode;
  readonly databaseUrl: string;
  readonly kafkaBrokers: string[];
  readonly postgres: ServerHandle;
  readonly kafka: ServerHandle;
  /** Stops what was started here, never an external server; may be called twice. */
  stop(): Promise<void>;
}

/**
 * Postgres with logical decoding and Kafka for development and tests. Resolves when both take requests. Servers that a killed
 * parent left in `directory` are ended first; their data is kept. When one of the two fails, the other is stopped again.
 */
export async function devServices(options: DevServicesOptions): Promise<DevServices> {
  const env = options.env ?? process.env;
  const log = options.log ?? (() => undefined);
  const requested = options.mode ?? parseServicesMode(env['HEADWATER_SERVICES']);
  const databaseUrl = env['DATABASE_URL'] || undefined;
  const kafkaBrokers = env['KAFKA_BROKERS'] || undefined;
  const choice = chooseServices({
    requested,
    databaseUrl,
    kafkaBrokers,
    preferContainers: options.preferContainers ?? false,
    missing: {
      containers: await missingForContainers(env),
      embedded: [
        ...(databaseUrl && requested !== 'embedded' ? [] : await missingForPostgres()),
        ...(kafkaBrokers && requested !== 'embedded' ? [] : await missingForKafka(env)),
      ],
    },
  });
  const directory = resolve(options.directory);
  await endOrphans(directory);
  if (options.fresh) rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const context: StartContext = { directory, env, log, options };
  const [postgres, kafka] = await both(
    startPostgres(choice, context, databaseUrl ?? ''),
    startKafka(choice, context, kafkaBrokers ?? ''),
  );
  return {
    mode: choice.postgres === 'external' ? choice.kafka : choice.postgres,
    databaseUrl: postgres.url,
    kafkaBrokers: kafka.brokers,
    postgres: postgres.server,
    kafka: kafka.server,
    async stop() {
      await Promise.all([postgres.server.stop(), kafka.server.stop()]);
    },
  };
}

/**
 * Ends the embedded servers that a killed parent left in `directory`; the data stays. Throws SERVICES_IN_USE when their parent
 * still lives.
 */
export async function endOrphans(directory: string): Promise<void> {
  await endOrphan(join(directory, 'postgres', 'postgres.pid'), { signal: 'SIGINT' });
  await endOrphan(join(directory, 'kafka', 'kafka.pid'), { signal: 'SIGTERM' });
}

interface StartContext {
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: (line: string) => void;
  readonly options: DevServicesOptions;
}

interface StartedPostgres {
  readonly url: string;
  readonly server: ServerHandle;
}

interface StartedKafka {
  readonly brokers: string[];
  readonly server: ServerHandle;
}

async function startPostgres(choice: ServicesChoice, context: StartContext, url: string): Promise<StartedPostgres> {
  const { directory, env, options } = context;
  switch (choice.postgres) {
    case 'external':
      return { url, server: externalServer(Number(new URL(url).port || 5432)) };
    case 'containers': {
      const { startPostgresContainer } = await import('./containers.js');
      return startPostgresContainer({ directory, env, settings: options.postgresSettings });
    }
    case 'embedded': {
      const settings = options.postgresSettings;
      const started = await startEmbeddedPostgres({ directory: join(directory, 'postgres'), env, settings });
      return { url: started.databaseUrl, server: started.server };
    }
  }
}

async function startKafka(choice: ServicesChoice, context: StartContext, brokers: string): Promise<StartedKafka> {
  const { directory, env, log, options } = context;
  switch (choice.kafka) {
    case 'external': {
      const list = brokers.split(',').map((broker) => broker.trim());
      return { brokers: list, server: externalServer(Number(list[0]?.split(':').at(-1) ?? 9092)) };
    }
    case 'containers': {
      const { startKafkaContainer } = await import('./containers.js');
      return startKafkaContainer({ directory, env, settings: options.kafkaSettings });
    }
    case 'embedded': {
      const { kafkaSettings: settings, kafkaJvmFlags: jvmFlags } = options;
      const server = await startEmbeddedKafka({ directory: join(directory, 'kafka'), env, log, settings, jvmFlags });
      return { brokers: [`127.0.0.1:${server.port}`], server };
    }
  }
}

/** Both or none: a half-started pair would outlive the error. */
async function both(
  starting: Promise<StartedPostgres>,
  alike: Promise<StartedKafka>,
): Promise<[StartedPostgres, StartedKafka]> {
  const [postgres, kafka] = await Promise.allSettled([starting, alike]);
  if (postgres.status === 'fulfilled' && kafka.status === 'fulfilled') return [postgres.value, kafka.value];
  if (postgres.status === 'fulfilled') await postgres.value.server.stop();
  if (kafka.status === 'fulfilled') await kafka.value.server.stop();
  throw postgres.status === 'rejected' ? postgres.reason : (kafka as PromiseRejectedResult).reason;
}

async function missingForContainers(env: NodeJS.ProcessEnv): Promise<string[]> {
  return (await containerEngine(env)) ? [] : ['a Docker engine that answers on DOCKER_HOST or /var/run/docker.sock'];
}

function externalServer(port: number): ServerHandle {
  const refuse = (): Promise<never> => Promise.reject(new Error('An external server is not ours to kill or start.'));
  return { pid: undefined, port, stop: () => Promise.resolve(), kill: refuse, start: refuse };
}
