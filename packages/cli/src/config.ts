import { readFileSync } from 'node:fs';
import { errorMessage } from '@headwater/core';
import type { KafkaOptions } from '@headwater/kafka';
import { kafkaOptions, kafkaSettings } from './kafka-settings.js';
import { UsageError } from './usage.js';

/** The file given with --config; without one, KAFKA_BROKERS and its companions tell where the brokers are. */
export interface Config {
  readonly path: string | undefined;
  /** Throws a UsageError with every mistake of `kafka` in the file. */
  readonly kafka: () => KafkaOptions | undefined;
  /** The whole file, for what a command reads of it. */
  readonly file: Readonly<Record<string, unknown>>;
}

export function readConfig(path: string | undefined, env: NodeJS.ProcessEnv): Config {
  if (path === undefined) return { path, kafka: () => kafkaOf(env), file: {} };
  const file = parse(path);
  return { path, kafka: () => checkedKafka(path, file['kafka']) ?? kafkaOf(env), file };
}

function parse(path: string): Readonly<Record<string, unknown>> {
  let file: unknown;
  try {
    file = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new UsageError([`--config ${path} cannot be read: ${errorMessage(error)}`], 'Give the path of a JSON file.');
  }
  if (typeof file === 'object' && file !== null && !Array.isArray(file)) return file as Record<string, unknown>;
  throw new UsageError(
    [`--config ${path} is not a JSON object`],
    'Write { "kafka": { "brokers": ["host:port"] }, … }.',
  );
}

function checkedKafka(path: string, kafka: unknown): KafkaOptions | undefined {
  if (kafka === undefined) return undefined;
  const mistakes = kafkaSettings(kafka, 'kafka').map((mistake) => `${path}: ${mistake}`);
  if (mistakes.length > 0) throw new UsageError(mistakes, 'Write "kafka": { "brokers": ["host:port"] }.');
  return kafkaOptions(kafka as Record<string, unknown>);
}

function kafkaOf(env: NodeJS.ProcessEnv): KafkaOptions | undefined {
  const brokers = (env['KAFKA_BROKERS'] ?? '').split(',').filter((broker) => broker !== '');
  if (brokers.length === 0) return undefined;
  const mechanism = env['KAFKA_SASL_MECHANISM']?.toLowerCase() as
    'plain' | 'scram-sha-256' | 'scram-sha-512' | undefined;
  const [username = '', password = ''] = [env['KAFKA_SASL_USERNAME'], env['KAFKA_SASL_PASSWORD']];
  return {
    brokers,
    ...(env['KAFKA_SSL'] === 'true' ? { ssl: true } : {}),
    ...(mechanism === undefined ? {} : { sasl: { mechanism, username, password } }),
  };
}
