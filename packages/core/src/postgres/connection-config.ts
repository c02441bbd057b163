import { isIP } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import pg from 'pg';

/** What a connection string says of TLS. */
const TLS_PARAMETERS = ['ssl', 'sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'uselibpqcompat'];

/**
 * What the driver is to be given for a connection string. As it is, the driver checks the certificate of a server that is addressed by its IP
 * against the name "localhost": here it is checked against the address. Reads the files that the string names.
 */
export function connectionConfig(connectionString: string): pg.ClientConfig {
  const { host, ssl } = parameters(connectionString);
  if (ssl === false || ssl === undefined || isIP(host) === 0 || !URL.canParse(connectionString))
    return { connectionString };
  const url = new URL(connectionString);
  for (const name of TLS_PARAMETERS) url.searchParams.delete(name);
  // Not enumerable there, so that it is not logged.
  const key = ssl === true || ssl.key === undefined ? {} : { key: ssl.key };
  return { connectionString: url.href, ssl: { ...(ssl === true ? {} : ssl), ...key, host } as ConnectionOptions };
}

interface Parameters {
  readonly host: string;
  readonly ssl: boolean | ConnectionOptions | undefined;
}

/** As the driver itself reads them, environment included. */
function parameters(connectionString: string): Parameters {
  return (new pg.Client({ connectionString }) as unknown as { connectionParameters: Parameters }).connectionParameters;
}
