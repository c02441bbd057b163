// Kafka Streams as a contestant: resolves its jars with Maven into the cache (once), and runs StreamsBench.java, one case per process.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const VERSION = '4.3.1';
const execute = promisify(execFile);

/** Undefined, and said so, where Java or Maven are missing. */
export async function streamsPeer({ root, kafkaBrokers, directory, log }) {
  const { missingForKafka, javaCommand } = await import(join(root, 'packages/testing/dist/kafka-distribution.js'));
  const missing = await missingForKafka(process.env);
  if (missing.length > 0) {
    log(`Without Kafka Streams: ${missing.join(', ')}`);
    return undefined;
  }
  const lib = await resolved(root, log);
  const classPath = `${lib}/*`;
  const env = { ...process.env, BOOTSTRAP: kafkaBrokers.join(','), STATE_DIR: join(directory, 'streams') };
  const program = join(root, 'bench/java/StreamsBench.java');
  return {
    /** The line of JSON that a case prints. */
    async run(...command) {
      const args = ['-Xmx2g', '-cp', classPath, program, ...command.map(String)];
      const { stdout } = await execute(javaCommand(process.env), args, { env, maxBuffer: 1 << 24 });
      const line = stdout.split('\n').findLast((each) => each.startsWith('{'));
      return JSON.parse(line);
    },
  };
}

async function resolved(root, log) {
  const cache = process.env.HEADWATER_CACHE || join(homedir(), '.cache', 'headwater');
  const lib = join(cache, `kafka-streams-${VERSION}`, 'lib');
  if (existsSync(lib)) return lib;
  log(`Fetching Kafka Streams ${VERSION} with Maven into ${lib} (once)`);
  const temporary = `${lib}.tmp-${process.pid}`;
  mkdirSync(temporary, { recursive: true });
  const pom = join(root, 'bench/java/streams-pom.xml');
  await execute('mvn', ['-q', '-B', '-f', pom, 'dependency:copy-dependencies', `-DoutputDirectory=${temporary}`]);
  renameSync(temporary, lib);
  return lib;
}
