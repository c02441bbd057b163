import { KAFKA_VERSIONS, javaCommand, kafkaClassPath } from './kafka-distribution.js';
import { runCommand } from './run-command.js';

/**
 * Compiles and runs one Java source against the client jars of the embedded Kafka, and resolves with the lines it printed. Rejects with its
 * whole output when it does not compile or fails.
 */
export async function runJava(
  file: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<string[]> {
  const classPath = await kafkaClassPath(env, KAFKA_VERSIONS.default, () => undefined);
  const quiet = ['-XX:TieredStopAtLevel=1', '-Dorg.slf4j.simpleLogger.defaultLogLevel=off'];
  const { exitCode, output } = await runCommand(javaCommand(env), [...quiet, '-cp', classPath, file, ...args], { env });
  if (exitCode !== 0) throw new Error(`${file} ended with ${exitCode}:\n${output}`);
  return output.split('\n');
}
