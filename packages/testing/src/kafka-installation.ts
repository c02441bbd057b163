import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { atomicDirectory } from './atomic-directory.js';
import { freePorts } from './free-port.js';
import { classArchive, javaCommand, kafkaCache, kafkaClassPath, recordClassArchive } from './kafka-distribution.js';
import { JVM_FLAGS, kafkaNode } from './kafka-node.js';
import { nodeSettings, toProperties } from './kafka-settings.js';
import { runCommand } from './run-command.js';
import { ServicesError } from './testing.errors.js';
import { uniqueName } from './unique-name.js';

/** A version of Kafka that is ready to run on this machine. */
export interface KafkaInstallation {
  readonly classPath: string;
  readonly jvmFlags: readonly string[];
  /** Puts a formatted, empty data folder for this node there; one that exists is kept. */
  format(data: string, nodeId: number): Promise<void>;
}

/** Fetches the jars, formats a template, records the class archive: all once per machine and version. */
export async function installKafka(
  env: NodeJS.ProcessEnv,
  version: string,
  log: (line: string) => void,
): Promise<KafkaInstallation> {
  const classPath = await kafkaClassPath(env, version, log);
  const template = await formattedTemplate(env, version, classPath);
  const archive = await classArchive(env, version);
  const installation = (jvmFlags: readonly string[]): KafkaInstallation => ({
    classPath,
    jvmFlags,
    format: (data, nodeId) => formatted(template, data, nodeId),
  });
  if (!existsSync(archive)) {
    log(`Recording the class archive of Kafka ${version} (once)`);
    const outcome = await recordClassArchive(archive, (recordTo) =>
      train(
        installation([`-XX:ArchiveClassesAtExit=${recordTo}`]),
        uniqueName(join(kafkaCache(env, version), 'training')),
        env,
      ),
    );
    // Only speed is lost without it.
    if (outcome === 'failed') log('The class archive of Kafka could not be recorded; starting without it');
  }
  return installation(existsSync(archive) ? [`-XX:SharedArchiveFile=${archive}`] : []);
}

/** One formatted data folder in the cache, copied for every new broker: formatting costs a JVM start. */
async function formattedTemplate(env: NodeJS.ProcessEnv, version: string, classPath: string): Promise<string> {
  const template = join(kafkaCache(env, version), 'template');
  await atomicDirectory(template, async (temporary) => {
    const settingsFile = `${temporary}.properties`;
    const settings = nodeSettings({ nodeId: TEMPLATE_NODE, port: 9092, controllerPort: 9093, data: temporary });
    writeFileSync(settingsFile, toProperties(settings));
    const tool = ['kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', settingsFile];
    const result = await runCommand(javaCommand(env), [...JVM_FLAGS, '-cp', classPath, ...tool], { env });
    rmSync(settingsFile, { force: true });
    if (result.exitCode !== 0) {
      throw new ServicesError('SERVICES_START_FAILED', `Kafka could not format its storage:\n${result.output}`);
    }
  });
  return template;
}

async function formatted(template: string, data: string, nodeId: number): Promise<void> {
  await atomicDirectory(data, async (temporary) => {
    cpSync(template, temporary, { recursive: true });
    if (nodeId === TEMPLATE_NODE) return;
    const file = join(temporary, 'meta.properties');
    const own = readFileSync(file, 'utf8')
      .replace(/^node\.id=.*$/m, `node.id=${nodeId}`)
      .replace(/^directory\.id=.*$/m, `directory.id=${randomBytes(16).toString('base64url')}`);
    writeFileSync(file, own);
  });
}

async function train(installation: KafkaInstallation, directory: string, env: NodeJS.ProcessEnv): Promise<void> {
  const data = join(directory, 'data');
  try {
    await installation.format(data, TEMPLATE_NODE);
    const [port = 0, controllerPort = 0] = await freePorts([undefined, undefined]);
    const settings = nodeSettings({ nodeId: TEMPLATE_NODE, port, controllerPort, data });
    const server = kafkaNode({ ...installation, directory, nodeId: TEMPLATE_NODE, port, settings, env });
    await server.start();
    await server.stop();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const TEMPLATE_NODE = 1;
const CLUSTER_ID = 'MkU3OEVBNTcwNTJENDM2Qk';
