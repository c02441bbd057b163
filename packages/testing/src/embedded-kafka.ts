import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePorts } from './free-port.js';
import { KAFKA_VERSIONS } from './kafka-distribution.js';
import { installKafka } from './kafka-installation.js';
import { KAFKA_PID_FILE, kafkaNode } from './kafka-node.js';
import { nodeSettings } from './kafka-settings.js';
import { endOrphan } from './pid-file.js';
import type { ServerProcess } from './server-process.js';

export interface EmbeddedKafkaOptions {
  /** Absolute directory of this broker's data, settings, log and pid file. */
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: (line: string) => void;
  /** Broker properties that replace the defaults, for instance `advertised.listeners`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Behind the default ones. */
  readonly jvmFlags?: readonly string[];
}

/**
 * Starts one Apache Kafka node (KRaft, broker and controller) on loopback. Data survives; the ports of an earlier start are
 * taken again when they are free, otherwise others are picked and advertised.
 */
export async function startEmbeddedKafka(options: EmbeddedKafkaOptions): Promise<ServerProcess> {
  const { env, log, directory } = options;
  mkdirSync(directory, { recursive: true });
  await endOrphan(join(directory, KAFKA_PID_FILE), { signal: 'SIGTERM' });
  const installation = await installKafka(env, KAFKA_VERSIONS.default, log);
  const data = join(directory, 'data');
  await installation.format(data, NODE_ID);
  const portsFile = join(directory, 'ports.json');
  const [port = 0, controllerPort = 0] = await freePorts(readPorts(portsFile));
  writeFileSync(portsFile, JSON.stringify([port, controllerPort]));
  const settings = { ...nodeSettings({ nodeId: NODE_ID, port, controllerPort, data }), ...options.settings };
  const jvmFlags = [...installation.jvmFlags, ...(options.jvmFlags ?? [])];
  const server = kafkaNode({ ...installation, jvmFlags, directory, nodeId: NODE_ID, port, settings, env });
  await server.start();
  return server;
}

const NODE_ID = 1;

function readPorts(file: string): (number | undefined)[] {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as number[]) : [undefined, undefined];
}
