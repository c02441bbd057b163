import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { kafkaAnswers } from './kafka-answers.js';
import { javaCommand } from './kafka-distribution.js';
import { toProperties } from './kafka-settings.js';
import { ServerProcess } from './server-process.js';

export interface KafkaNodeSpec {
  /** Absolute directory of this node's settings, log and pid file. */
  readonly directory: string;
  readonly nodeId: number;
  readonly port: number;
  readonly settings: Readonly<Record<string, string>>;
  readonly classPath: string;
  readonly jvmFlags: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** One Kafka process on a formatted data folder, not started yet. It is ready when it counts itself among the living brokers. */
export function kafkaNode(spec: KafkaNodeSpec): ServerProcess {
  const { directory, env, nodeId, port } = spec;
  mkdirSync(directory, { recursive: true });
  const settingsFile = join(directory, 'server.properties');
  const loggingFile = join(directory, 'log4j2.xml');
  writeFileSync(settingsFile, toProperties(spec.settings));
  writeFileSync(loggingFile, LOG4J2);
  const jvm = [...JVM_FLAGS, ...spec.jvmFlags, `-Dlog4j2.configurationFile=${loggingFile}`];
  return new ServerProcess({
    name: 'Kafka',
    port,
    pidFile: join(directory, KAFKA_PID_FILE),
    logFile: join(directory, 'kafka.log'),
    command: javaCommand(env),
    args: [...jvm, '-cp', spec.classPath, 'kafka.Kafka', settingsFile],
    env,
    stopSignal: 'SIGTERM',
    startTimeoutMs: 90_000,
    ready: () => kafkaAnswers(port, nodeId),
  });
}

export const KAFKA_PID_FILE = 'kafka.pid';

/** The last of a flag wins: more can be appended. */
export const JVM_FLAGS = [
  '-Xms64m',
  '-Xmx384m',
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  '-Xshare:auto',
  // A stale archive is ignored, silently.
  '-Xlog:disable',
  '-Xlog:all=off',
];

const LOG4J2 = `<Configuration status="WARN"><Appenders><Console name="o"><PatternLayout pattern="%d %p %c %m%n"/></Console></Appenders><Loggers><Root level="WARN"><AppenderRef ref="o"/></Root></Loggers></Configuration>
`;
