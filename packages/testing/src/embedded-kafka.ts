import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { atomicDirectory } from './atomic-directory.js';
import { freePorts } from './free-port.js';
import { kafkaAnswers } from './kafka-answers.js';
import { classArchive, javaCommand, kafkaCache, kafkaClassPath, recordClassArchive } from './kafka-distribution.js';
import { endOrphan } from './pid-file.js';
import { runCommand } from './run-command.js';
import { ServerProcess } from './server-process.js';
import { ServicesError } from './testing.errors.js';
import { uniqueName } from './unique-name.js';

export interface EmbeddedKafkaOptions {
  /** Absolute directory of this broker's data, settings, log and pid file. */
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: (line: string) => void;
  /** Broker properties that replace the defaults, for instance `advertised.listeners`. */
  readonly settings?: Readonly<Record<string, string>>;
}

/**
 * Starts one Apache Kafka node (KRaft, broker and controller) on loopback. Data survives; the ports of an earlier start are
 * taken again when they are free, otherwise others are picked and advertised.
 */
export async function startEmbeddedKafka(options: EmbeddedKafkaOptions): Promise<ServerProcess> {
  const { env, log, directory } = options;
  mkdirSync(directory, { recursive: true });
  await endOrphan(join(directory, 'kafka.pid'), { signal: 'SIGTERM' });
  const classPath = await kafkaClassPath(env, log);
  const archive = await classArchive(env);
  const template = await formattedTemplate(env, classPath);
  if (!existsSync(archive)) await trainArchive({ archive, template, classPath, env, log });
  const data = join(directory, 'data');
  await atomicDirectory(data, async (temporary) => cpSync(template, temporary, { recursive: true }));
  return launch({ ...options, classPath, jvmFlags: existsSync(archive) ? [`-XX:SharedArchiveFile=${archive}`] : [] });
}

async function launch(
  options: EmbeddedKafkaOptions & { readonly classPath: string; readonly jvmFlags: readonly string[] },
): Promise<ServerProcess> {
  const { directory, env } = options;
  const portsFile = join(directory, 'ports.json');
  const [port = 0, controllerPort = 0] = await freePorts(readPorts(portsFile));
  writeFileSync(portsFile, JSON.stringify([port, controllerPort]));
  const settingsFile = join(directory, 'server.properties');
  const loggingFile = join(directory, 'log4j2.xml');
  const settings = { ...brokerSettings({ port, controllerPort, data: join(directory, 'data') }), ...options.settings };
  writeFileSync(settingsFile, toProperties(settings));
  writeFileSync(loggingFile, LOG4J2);
  const jvm = [...JVM_FLAGS, ...options.jvmFlags, `-Dlog4j2.configurationFile=${loggingFile}`];
  const server = new ServerProcess({
    name: 'Kafka',
    port,
    pidFile: join(directory, 'kafka.pid'),
    logFile: join(directory, 'kafka.log'),
    command: javaCommand(env),
    args: [...jvm, '-cp', options.classPath, 'kafka.Kafka', settingsFile],
    env,
    stopSignal: 'SIGTERM',
    startTimeoutMs: 90_000,
    ready: () => kafkaAnswers(port),
  });
  await server.start();
  return server;
}

/** One formatted data folder in the cache, copied for every new broker: formatting costs a JVM start. */
async function formattedTemplate(env: NodeJS.ProcessEnv, classPath: string): Promise<string> {
  const template = join(kafkaCache(env), 'template');
  await atomicDirectory(template, async (temporary) => {
    const settingsFile = `${temporary}.properties`;
    writeFileSync(settingsFile, toProperties(brokerSettings({ port: 9092, controllerPort: 9093, data: temporary })));
    const args = [
      ...JVM_FLAGS,
      '-cp',
      classPath,
      'kafka.tools.StorageTool',
      'format',
      '-t',
      CLUSTER_ID,
      '-c',
      settingsFile,
    ];
    const result = await runCommand(javaCommand(env), args, { env });
    rmSync(settingsFile, { force: true });
    if (result.exitCode !== 0) {
      throw new ServicesError('SERVICES_START_FAILED', `Kafka could not format its storage:\n${result.output}`);
    }
  });
  return template;
}

async function trainArchive(options: {
  readonly archive: string;
  readonly template: string;
  readonly classPath: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: (line: string) => void;
}): Promise<void> {
  const { archive, template, classPath, env, log } = options;
  log('Recording the class archive of Kafka (once)');
  const directory = uniqueName(join(kafkaCache(env), 'training'));
  const outcome = await recordClassArchive(archive, async (recordTo) => {
    cpSync(template, join(directory, 'data'), { recursive: true });
    const server = await launch({ directory, env, log, classPath, jvmFlags: [`-XX:ArchiveClassesAtExit=${recordTo}`] });
    await server.stop();
  });
  rmSync(directory, { recursive: true, force: true });
  // Only speed is lost without it.
  if (outcome === 'failed') log('The class archive of Kafka could not be recorded; starting without it');
}

function brokerSettings(at: { readonly port: number; readonly controllerPort: number; readonly data: string }) {
  return {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${at.controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${at.port},CONTROLLER://127.0.0.1:${at.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${at.port}`,
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': at.data,
    ...FIXED_SETTINGS,
  };
}

const CLUSTER_ID = 'MkU3OEVBNTcwNTJENDM2Qk';

const JVM_FLAGS = [
  '-Xms64m',
  '-Xmx384m',
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  '-Xshare:auto',
  // A stale archive is ignored, silently.
  '-Xlog:disable',
  '-Xlog:all=off',
];

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

const LOG4J2 = `<Configuration status="WARN"><Appenders><Console name="o"><PatternLayout pattern="%d %p %c %m%n"/></Console></Appenders><Loggers><Root level="WARN"><AppenderRef ref="o"/></Root></Loggers></Configuration>
`;

function readPorts(file: string): (number | undefined)[] {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as number[]) : [undefined, undefined];
}

function toProperties(settings: Readonly<Record<string, string>>): string {
  // A backslash is the escape character of the format (Windows paths).
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value.replaceAll('\\', '\\\\')}\n`)
    .join('');
}
