import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Certificate, CertificateAuthority } from './certificates.js';
import { startEmbeddedPostgres, type EmbeddedPostgres } from './embedded-postgres.js';
import { ensurePostgresUser } from './postgres-binaries.js';

export interface SecuredPostgresOptions {
  /** Absolute directory of the cluster; made when absent. */
  readonly directory: string;
  readonly certificate: Certificate;
  /** Whose certificates of clients are accepted. */
  readonly clients: CertificateAuthority;
  /** Roles that are let in by a certificate of their name, over TLS, and by nothing else. */
  readonly certified: readonly string[];
  /** Environment to hand to the server. Default: that of this process. */
  readonly env?: NodeJS.ProcessEnv;
}

/** An embedded Postgres that speaks TLS. Every role but the certified ones may also come without, by password. */
export async function securedPostgres(options: SecuredPostgresOptions): Promise<EmbeddedPostgres> {
  const { directory, certificate, clients, certified, env = process.env } = options;
  mkdirSync(directory, { recursive: true });
  const user = await ensurePostgresUser();
  const file = (name: string, text: string): string => {
    const path = join(directory, name);
    // Postgres refuses a key that others can read.
    writeFileSync(path, text, { mode: 0o600 });
    if (user !== undefined) chownSync(path, user.uid, user.gid);
    return path;
  };
  const rules = [
    ...certified.flatMap((role) => [`hostssl all "${role}" all cert`, `host all "${role}" all reject`]),
    'host all all 127.0.0.1/32 scram-sha-256',
  ];
  const settings = {
    ssl: 'on',
    ssl_cert_file: file('server.pem', certificate.cert),
    ssl_key_file: file('server.key', certificate.key),
    ssl_ca_file: file('clients.pem', clients.ca),
    hba_file: file('pg_hba.conf', `${rules.join('\n')}\n`),
  };
  return startEmbeddedPostgres({ directory, env, settings });
}
