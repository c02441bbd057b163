import { createHash } from 'node:crypto';
import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { atomicDirectory } from './atomic-directory.js';
import { runCommand } from './run-command.js';
import { ServicesError } from './testing.errors.js';

/** The brokers that tests run on: the default, the oldest line with KRaft and no KIP-890, the newest release. */
export const KAFKA_VERSIONS = Object.freeze({ default: '4.1.1', oldest: '3.9.2', newest: '4.4.0' });

/** Where the jars and the class archive of the embedded broker lie, shared by all checkouts of this user. */
export function kafkaCache(env: NodeJS.ProcessEnv, version: string = KAFKA_VERSIONS.default): string {
  return join(env['HEADWATER_CACHE'] || join(homedir(), '.cache', 'headwater'), `kafka-${version}`);
}

/** What this machine lacks for an embedded Kafka; empty when it can run. */
export async function missingForKafka(env: NodeJS.ProcessEnv): Promise<string[]> {
  const missing: string[] = [];
  const java = await javaVersion(env);
  const major = Number(/version "(\d+)/.exec(java ?? '')?.[1] ?? 0);
  if (java === undefined) missing.push('Java 17 or newer (`java` is not in PATH or JAVA_HOME)');
  else if (major < 17) missing.push(`Java 17 or newer (found ${java.split('\n')[0]})`);
  if (!existsSync(join(kafkaCache(env), 'lib')) && (await runCommand('mvn', ['-v'], { env })).exitCode !== 0) {
    missing.push('Maven (`mvn` is not in PATH), needed once to fetch the jars of Kafka');
  }
  return missing;
}

export function javaCommand(env: NodeJS.ProcessEnv): string {
  const home = env['JAVA_HOME'];
  return home && existsSync(join(home, 'bin', 'java')) ? join(home, 'bin', 'java') : 'java';
}

/** The class path of the broker; the first call on a machine resolves it with Maven. */
export function kafkaClassPath(env: NodeJS.ProcessEnv, version: string, log: (line: string) => void): Promise<string> {
  const lib = join(kafkaCache(env, version), 'lib');
  return resolvedJars(env, { name: 'Apache Kafka', pom: 'pom.xml', lib, version }, log);
}

/** Kafka Streams of the same version, to be added to the class path of the broker; without RocksDB. */
export function streamsClassPath(
  env: NodeJS.ProcessEnv,
  version: string,
  log: (line: string) => void,
): Promise<string> {
  const lib = join(kafkaCache(env, version), 'streams');
  return resolvedJars(env, { name: 'Kafka Streams', pom: 'streams-pom.xml', lib, version }, log);
}

interface Jars {
  readonly name: string;
  readonly pom: string;
  readonly lib: string;
  readonly version: string;
}

async function resolvedJars(
  env: NodeJS.ProcessEnv,
  { name, pom, lib, version }: Jars,
  log: (line: string) => void,
): Promise<string> {
  await atomicDirectory(lib, async (temporary) => {
    log(`Fetching ${name} ${version} with Maven into ${lib} (once)`);
    const file = fileURLToPath(new URL(`../kafka/${pom}`, import.meta.url));
    const settings = [`-Dkafka.version=${version}`, `-DoutputDirectory=${temporary}`];
    const args = ['-q', '-B', '-f', file, 'dependency:copy-dependencies', ...settings];
    const result = await runCommand('mvn', args, { env });
    if (result.exitCode !== 0) {
      throw new ServicesError(
        'SERVICES_START_FAILED',
        `Maven could not fetch the jars of ${name} (mvn ${args.join(' ')}):\n${result.output.slice(-2000)}`,
      );
    }
  });
  // Sorted, not `lib/*`: the class archive is bound to the exact order.
  return readdirSync(lib)
    .filter((file) => file.endsWith('.jar'))
    .sort()
    .map((file) => join(lib, file))
    .join(delimiter);
}

/** The file of the class archive for this Java; it halves the start. Absent until `recordClassArchive` has succeeded once. */
export async function classArchive(env: NodeJS.ProcessEnv, version: string): Promise<string> {
  const hash = createHash('sha256')
    .update((await javaVersion(env)) ?? '')
    .digest('hex')
    .slice(0, 12);
  return join(kafkaCache(env, version), `classes-${hash}.jsa`);
}

/** Records the archive by one run of the broker; a loser of a race overwrites with an equal file. */
export async function recordClassArchive(
  archive: string,
  run: (recordTo: string) => Promise<void>,
): Promise<'recorded' | 'failed'> {
  const temporary = `${archive}.tmp-${process.pid}`;
  try {
    await run(temporary);
    renameSync(temporary, archive);
    return 'recorded';
  } catch {
    return 'failed';
  } finally {
    rmSync(temporary, { force: true });
  }
}

async function javaVersion(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const result = await runCommand(javaCommand(env), ['-version'], { env });
  return result.exitCode === 0 ? result.output : undefined;
}
