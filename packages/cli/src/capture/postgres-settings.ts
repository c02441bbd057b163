import { sslFiles } from '../kafka-settings.js';
import { either, flag, integer, isObject, object, optional, required, text, type Check } from '../settings.js';

const url: Check = (value, at) => {
  if (typeof value === 'string' && /^postgres(ql)?:\/\/./.test(value) && URL.canParse(withHost(value))) return [];
  return [`${at}: not a URL of PostgreSQL. Write "postgres://user:password@host:5432/database".`];
};
/** The driver takes a URL without a host, for what PGHOST or a socket gives; URL does not. */
const withHost = (value: string): string => value.replace('@/', '@localhost/');

const ssl = { ssl: optional(either([isObject, sslFiles], [() => true, flag])) };
const byUrl = object({ connectionString: required(url, '"connectionString": "postgres://…"'), ...ssl });
const byParts = object({
  host: required(text, '"host": "127.0.0.1", or "connectionString": "postgres://…"'),
  port: optional(integer(1, 65_535)),
  database: required(text, '"database": "shop"'),
  user: required(text, '"user": "capture"'),
  password: optional(text),
  ...ssl,
});

/** `postgres` of a file: a connection string, or its parts. */
export const postgresSettings: Check = either(
  [
    (value) => isObject(value) && ['host', 'port', 'database', 'user'].some((name) => Object.hasOwn(value, name)),
    byParts,
  ],
  [() => true, byUrl],
);

/** Of settings that were checked. `ssl` always verifies the server's certificate and its name. */
export function connectionStringOf(postgres: Readonly<Record<string, unknown>>): string {
  const {
    connectionString,
    host,
    port,
    database,
    user,
    password,
    ssl: secured,
  } = postgres as Record<string, string | undefined> & { ssl?: unknown };
  const result = new URL(
    connectionString === undefined
      ? `postgres://${encodeURIComponent(user!)}@host/${encodeURIComponent(database!)}`
      : withHost(connectionString),
  );
  if (connectionString === undefined) {
    // A path is a Unix socket: the driver takes it from the query.
    if (host!.startsWith('/')) result.searchParams.set('host', host!);
    else result.hostname = host!.includes(':') ? `[${host}]` : host!;
    if (port !== undefined) result.port = String(port);
    if (password !== undefined) result.password = encodeURIComponent(password);
  }
  if (secured === undefined || secured === false) return result.href;
  result.searchParams.set('sslmode', 'verify-full');
  const files = isObject(secured) ? secured : {};
  for (const [name, parameter] of [
    ['caFile', 'sslrootcert'],
    ['certFile', 'sslcert'],
    ['keyFile', 'sslkey'],
  ] as const)
    if (files[name] !== undefined) result.searchParams.set(parameter, files[name] as string);
  return result.href;
}
