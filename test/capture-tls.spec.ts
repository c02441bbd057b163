import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { capture } from '@headwater/cdc';
import { Changelog, Key } from '@headwater/core';
import { HeadwaterModule } from '@headwater/core/nest';
import { kafkaLog } from '@headwater/kafka';
import { certificateAuthority, eventually, securedPostgres } from '@headwater/testing';
import type { CertificateAuthority, EmbeddedPostgres } from '@headwater/testing';
import { Source } from '../packages/cdc/src/source.testing.js';
import { Configs, Headwater } from '../packages/cli/src/cli.testing.js';
import { securedBroker, USERS } from '../packages/kafka/src/secured-broker.testing.js';
import type { SecuredBroker } from '../packages/kafka/src/secured-broker.testing.js';

/** Let in by a certificate of this name alone. */
const ROLE = 'certified';

@Changelog({ topic: 'secured.rows', table: 'public.a' })
class Row {
  @Key()
  id!: number;
}

@Module({})
class SecuredModule {}

let directory: string;
/** Trusted, and not. */
let authority: CertificateAuthority;
let stranger: CertificateAuthority;
let postgres: EmbeddedPostgres;
let broker: SecuredBroker;
let configs: Configs;
let source: Source;
let running: Headwater | undefined;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'headwater-secured-'));
  // The user postgres must be able to enter it.
  chmodSync(directory, 0o755);
  configs = new Configs();
  authority = certificateAuthority(join(directory, 'authority'));
  stranger = certificateAuthority(join(directory, 'stranger'));
  const certificate = authority.issue('server');
  [postgres, broker] = await Promise.all([
    securedPostgres({ directory: join(directory, 'postgres'), certificate, clients: authority, certified: [ROLE] }),
    securedBroker(),
  ]);
});
afterAll(async () => {
  await Promise.all([postgres?.server.stop(), broker?.stop()]);
  configs?.remove();
  rmSync(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  source = await Source.open(postgres.databaseUrl, broker.open);
  await source.sql.query(`CREATE TABLE a (id int PRIMARY KEY, b text); INSERT INTO a VALUES (1, 'snapshot')`);
  await source.sql.query(
    `DO $$ BEGIN CREATE ROLE ${ROLE} LOGIN SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$`,
  );
});
afterEach(async () => {
  await running?.kill('SIGKILL');
  running = undefined;
  await source?.close();
});

/** How capture comes to the server when all is right. */
function toPostgres(): Record<string, unknown> & { readonly ssl: object } {
  const { port, pathname } = new URL(source.url);
  const { certFile, keyFile } = authority.issue(ROLE);
  const ssl = { caFile: authority.caFile, certFile, keyFile };
  return { host: '127.0.0.1', port: Number(port), database: pathname.slice(1), user: ROLE, ssl };
}

const toKafka = () => ({
  brokers: broker.sasl,
  ssl: { caFile: broker.authority.caFile },
  sasl: { mechanism: 'scram-sha-512', username: 'alice', password: USERS.alice },
});

function cli(more: object = {}): Headwater {
  const file = configs.write({
    name: source.name,
    postgres: toPostgres(),
    kafka: toKafka(),
    tables: ['public.a'],
    topics: { prefix: source.name, partitions: 1, replicationFactor: 1 },
    ...more,
  });
  return (running = new Headwater(['capture', '--config', file]));
}

/** Every session of the capture is encrypted and has shown its certificate; the walsender is one of them. */
async function allSecured(): Promise<void> {
  const { rows } = await source.sql.query<{ pid: number; ssl: boolean; dn: string | null; kind: string }>(
    `SELECT pid, ssl, client_dn AS dn, backend_type AS kind FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
      WHERE datname = current_database() AND application_name LIKE 'headwater%'`,
  );
  expect(rows.filter(({ ssl, dn }) => !ssl || dn !== `/CN=${ROLE}`)).toEqual([]);
  expect(new Set(rows.map(({ kind }) => kind))).toEqual(new Set(['client backend', 'walsender']));
  expect(rows.map(({ pid }) => pid)).toContain((await source.slotFacts())!.pid);
}

describe('capture over TLS', () => {
  it('takes snapshot and changes with certificates to Postgres and a password to Kafka, from a file', async () => {
    const topic = `${source.name}.public.a`;
    cli();
    await source.seenIn(topic, 1);
    await source.sql.query(`INSERT INTO a VALUES (2, 'stream')`);
    const seen = await source.seenIn(topic, 2);
    expect(seen.map(({ value }) => value)).toEqual(['{"id":1,"b":"snapshot"}', '{"id":2,"b":"stream"}']);
    await allSecured();
    expect(await running!.kill('SIGTERM')).toMatchObject({ code: 0 });
  });

  it('takes snapshot and changes in a Nest application', async () => {
    const app = await nest(secured(authority), { ca: broker.authority.ca });
    try {
      await source.seenIn('secured.rows', 1);
      await source.sql.query(`INSERT INTO a VALUES (2, 'stream')`);
      const seen = await source.seenIn('secured.rows', 2);
      expect(seen.map(({ value }) => value)).toEqual(['{"id":1,"b":"snapshot"}', '{"id":2,"b":"stream"}']);
      await eventually(allSecured);
    } finally {
      await app.close();
    }
  });

  it.each<[string, () => object, RegExp]>([
    [
      'a CA of Postgres that is not its own',
      () => ({ postgres: { ...toPostgres(), ssl: { ...toPostgres().ssl, caFile: stranger.caFile } } }),
      /CDC_SERVER_NOT_READY.*\n.*certificate is not trusted: .*certificate.* Name the certificate of its CA/,
    ],
    [
      'another name than the certificate of Postgres holds',
      () => ({ postgres: { ...toPostgres(), host: 'localhost' } }),
      /CDC_SERVER_NOT_READY.*\n.*certificate is not for "localhost": .* Connect by a name that it holds/,
    ],
    [
      'no certificate of its own',
      () => ({ postgres: { ...toPostgres(), ssl: { caFile: authority.caFile } } }),
      /CDC_SERVER_NOT_READY.*\n.*role "certified" by a certificate: .*client certificate.* Name one .*ssl\.certFile/,
    ],
    [
      'a wrong password for Postgres',
      () => ({
        postgres: { ...toPostgres(), user: 'postgres', password: 'wrong', ssl: { caFile: authority.caFile } },
      }),
      /CDC_SERVER_NOT_READY.*\n.*password of role "postgres" is refused: .* Correct it in the connection string/,
    ],
    [
      'a CA of the brokers that is not their own',
      () => ({ kafka: { ...toKafka(), ssl: { caFile: stranger.caFile } } }),
      /KAFKA_CERTIFICATE_UNTRUSTED: the certificate of broker 127\.0\.0\.1:\d+ is not trusted: .*certificate.* Name the certificate of its CA/,
    ],
    [
      'a wrong password for Kafka',
      () => ({ kafka: { ...toKafka(), sasl: { ...toKafka().sasl, password: 'wrong' } } }),
      /KAFKA_AUTHENTICATION_FAILED: broker 127\.0\.0\.1:\d+ refused the credentials: .* Check sasl/,
    ],
  ])('ends with cause and next step, and has made nothing, with %s', async (_, wrong, told) => {
    expect(await cli(wrong()).ended).toMatchObject({ code: 1, out: '', err: expect.stringMatching(told) });
    expect(await source.slotFacts()).toBeUndefined();
  });

  it.each<[string, () => ReturnType<typeof nest>, object]>([
    ['Postgres', () => nest(secured(stranger), { ca: broker.authority.ca }), { code: 'CDC_SERVER_NOT_READY' }],
    ['the brokers', () => nest(secured(authority), { ca: stranger.ca }), { code: 'KAFKA_CERTIFICATE_UNTRUSTED' }],
  ])('does not start a Nest application with a wrong CA of %s', async (_, start, refusal) => {
    await expect(start()).rejects.toMatchObject({
      ...refusal,
      message: expect.stringMatching(/is not trusted: .*certificate.* Name the certificate of its CA/),
    });
  });
});

/** A connection string with certificates. */
function secured(trusted: CertificateAuthority): string {
  const { certFile, keyFile } = authority.issue(ROLE);
  const { host, pathname } = new URL(source.url);
  const files = { sslmode: 'verify-full', sslrootcert: trusted.caFile, sslcert: certFile, sslkey: keyFile };
  return `postgres://${ROLE}@${host}${pathname}?${new URLSearchParams(files).toString()}`;
}

function nest(connectionString: string, ssl: { readonly ca: string }) {
  const sasl = { mechanism: 'plain', username: 'alice', password: USERS.alice } as const;
  const log = kafkaLog({ brokers: broker.sasl, ssl, sasl });
  const headwater = HeadwaterModule.forRoot({
    databaseUrl: secured(authority),
    log,
    roles: ['capture'],
    partitions: 1,
    engines: [capture({ name: source.name, connectionString })],
  });
  return NestFactory.createApplicationContext(
    { module: SecuredModule, imports: [headwater, HeadwaterModule.forFeature([Row])] },
    // An error is the test's, not the end of its process.
    { logger: false, abortOnError: false },
  );
}
