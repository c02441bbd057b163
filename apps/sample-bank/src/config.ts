import { ROLES, type Role } from '@headwater/core';

const SASL = ['plain', 'scram-sha-256', 'scram-sha-512'] as const;
export type SaslMechanism = (typeof SASL)[number];

/** What a process of the bank is told by its environment. */
export interface BankConfig {
  readonly databaseUrl: string;
  readonly brokers: readonly string[];
  readonly roles: readonly Role[];
  readonly port: number;
  readonly host: string;
  readonly adminToken: string | undefined;
  readonly instanceId: string | undefined;
  readonly kafkaSsl: boolean;
  readonly kafkaSasl:
    { readonly mechanism: SaslMechanism; readonly username: string; readonly password: string } | undefined;
}

/** Reads and checks the whole environment at once; every mistake is in the message. */
export function readConfig(env: NodeJS.ProcessEnv): BankConfig {
  const mistakes: string[] = [];
  const roles = (env['HEADWATER_ROLES'] ?? ROLES.join(',')).split(',').map((role) => role.trim());
  for (const role of roles) {
    if (!(ROLES as readonly string[]).includes(role))
      mistakes.push(`HEADWATER_ROLES: "${role}" is not one of ${ROLES.join(', ')}`);
  }
  const needsLog = roles.some((role) => role !== 'api');
  if (!env['DATABASE_URL'])
    mistakes.push(
      'DATABASE_URL is missing. `npm start` sets it; otherwise postgres://user:password@host:port/database',
    );
  if (needsLog && !env['KAFKA_BROKERS'])
    mistakes.push('KAFKA_BROKERS is missing. `npm start` sets it; otherwise host:port,host:port');
  const port = Number(env['PORT'] ?? (roles.includes('api') ? 3000 : 0));
  if (!Number.isInteger(port) || port < 0 || port > 65_535) mistakes.push(`PORT "${env['PORT']}" is not a port`);
  const mechanism = env['KAFKA_SASL_MECHANISM']?.toLowerCase() as SaslMechanism | undefined;
  if (mechanism !== undefined && !SASL.includes(mechanism))
    mistakes.push(`KAFKA_SASL_MECHANISM: "${mechanism}" is not one of ${SASL.join(', ')}`);
  if (mistakes.length > 0) throw new ConfigError(mistakes);
  return {
    databaseUrl: env['DATABASE_URL']!,
    brokers: (env['KAFKA_BROKERS'] ?? '').split(',').filter((broker) => broker !== ''),
    roles: roles as Role[],
    port,
    host: env['HOST'] ?? '127.0.0.1',
    adminToken: env['HEADWATER_ADMIN_TOKEN'],
    instanceId: env['HEADWATER_INSTANCE_ID'],
    kafkaSsl: env['KAFKA_SSL'] === 'true',
    kafkaSasl:
      mechanism === undefined
        ? undefined
        : { mechanism, username: env['KAFKA_SASL_USERNAME'] ?? '', password: env['KAFKA_SASL_PASSWORD'] ?? '' },
  };
}

export class ConfigError extends Error {
  constructor(mistakes: readonly string[]) {
    super(`CONFIG_INVALID:\n${mistakes.map((mistake) => `  - ${mistake}`).join('\n')}`);
    this.name = 'ConfigError';
  }
}
