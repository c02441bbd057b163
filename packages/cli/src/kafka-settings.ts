import { readFileSync } from 'node:fs';
import type { KafkaOptions } from '@headwater/kafka';
import {
  either,
  file,
  flag,
  integer,
  isObject,
  list,
  matching,
  object,
  oneOf,
  optional,
  required,
  text,
  type Check,
} from './settings.js';

const EXAMPLE = '"brokers": ["host:port"]';

export const sslFiles: Check = object({ caFile: optional(file), certFile: optional(file), keyFile: optional(file) });

/** `kafka` of a file. */
export const kafkaSettings: Check = object({
  brokers: required(list(matching(/^[^\s:]+:\d{1,5}$|^\[[^\]]+\]:\d{1,5}$/, 'host:port'), EXAMPLE), EXAMPLE),
  clientId: optional(text),
  ssl: optional(either([isObject, sslFiles], [() => true, flag])),
  sasl: optional(
    object({
      mechanism: required(oneOf('plain', 'scram-sha-256', 'scram-sha-512'), '"mechanism": "scram-sha-512"'),
      username: required(text, '"username": "…"'),
      password: required(text, '"password": "…"'),
    }),
  ),
  requestTimeoutMs: optional(integer(100)),
  maxPollBytes: optional(integer(1_024, 64 << 20)),
  compression: optional(oneOf('gzip', 'snappy', 'lz4', 'zstd')),
});

/** Of settings that were checked. Reads the files of `ssl`. */
export function kafkaOptions(settings: Readonly<Record<string, unknown>>): KafkaOptions {
  const { ssl, ...rest } = settings;
  if (!isObject(ssl)) return settings as unknown as KafkaOptions;
  const [ca, cert, key] = [ssl['caFile'], ssl['certFile'], ssl['keyFile']].map((path) =>
    path === undefined ? undefined : readFileSync(path as string, 'utf8'),
  );
  const tls = Object.fromEntries(Object.entries({ ca, cert, key }).filter(([, pem]) => pem !== undefined));
  return { ...(rest as unknown as KafkaOptions), ssl: tls };
}
