import { delimiter } from 'node:path';
import { KAFKA_VERSIONS, javaCommand, kafkaClassPath, streamsClassPath } from './kafka-distribution.js';
import { runCommand } from './run-command.js';

/**
 * Compiles and runs one Java source against the client jars of the embedded Kafka, and Kafka Streams where asked, and resolves with the
 * lines it printed. Rejects with its whole output when it does not compile or fails.
 */
export async function runJava(
  file: string,
  args: readonly string[],
  { env = process.env, jars = 'clients' }: { env?: NodeJS.ProcessEnv; jars?: 'clients' | 'streams' } = {},
): Promise<string[]> {
  const paths = [await kafkaClassPath(env, KAFKA_VERSIONS.default, () => undefined)];
  if (jars === 'streams') paths.push(await streamsClassPath(env, KAFKA_VERSIONS.default, () => undefined));
  const quiet = ['-XX:TieredStopAtLevel=1', '-Dorg.slf4j.simpleLogger.defaultLogLevel=off'];
  const command = [...quiet, '-cp', paths.join(delimiter), file, ...args];
  const { exitCode, output } = await runCommand(javaCommand(env), command, { env });
  if (exitCode !== 0) throw new Error(`${file} ended with ${exitCode}:\n${output}`);
  return output.split('\n');
}
