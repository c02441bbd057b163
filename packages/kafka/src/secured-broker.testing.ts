import { pbkdf2Sync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  certificateAuthority,
  freePort,
  kafkaCluster,
  type CertificateAuthority,
  type KafkaCluster,
  type KafkaPorts,
} from '@headwater/testing';
import { kafkajsClient } from './kafkajs-hook.js';
import { flexible } from './requests/call.js';
import { Wire } from './wire.js';

export const USERS = { alice: 'alice-secret', bob: 'bob-secret' } as const;
/** kafkajs authenticates again ten seconds before a session ends: here after one. */
export const SESSION_MS = 11_000;

export interface SecuredBroker {
  readonly cluster: KafkaCluster;
  /** Clients without credentials: they may do everything. */
  readonly open: readonly string[];
  readonly tls: readonly string[];
  /** TLS with PLAIN, SCRAM and OAUTHBEARER. Everybody but bob may do everything. */
  readonly sasl: readonly string[];
  /** PLAIN without TLS, with sessions that end after SESSION_MS: what a fault proxy can look into. */
  readonly plain: readonly string[];
  /** The authority to be trusted. */
  readonly authority: CertificateAuthority;
  stop(): Promise<void>;
}

export async function securedBroker(): Promise<SecuredBroker> {
  const directory = mkdtempSync(join(tmpdir(), 'headwater-tls-'));
  const authority = certificateAuthority(directory);
  const { key, cert } = authority.issue('broker');
  const keystore = join(directory, 'keystore.pem');
  writeFileSync(keystore, key + cert);
  const [tls, sasl, plain] = [await freePort(), await freePort(), await freePort()];
  const extra = `TLS://127.0.0.1:${tls},SASL://127.0.0.1:${sasl},PLAIN://127.0.0.1:${plain}`;
  const settings = (at: KafkaPorts): Record<string, string> => ({
    listeners: `PLAINTEXT://127.0.0.1:${at.port},INTERNAL://127.0.0.1:${at.internalPort},CONTROLLER://127.0.0.1:${at.controllerPort},${extra}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${at.port},INTERNAL://127.0.0.1:${at.internalPort},${extra}`,
    'listener.security.protocol.map':
      'PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SASL:SASL_SSL,PLAIN:SASL_PLAINTEXT',
    'ssl.keystore.type': 'PEM',
    'ssl.keystore.location': keystore,
    'listener.name.sasl.sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
    'listener.name.plain.sasl.enabled.mechanisms': 'PLAIN',
    'listener.name.sasl.plain.sasl.jaas.config': plainLogin(),
    'listener.name.plain.plain.sasl.jaas.config': plainLogin(),
    'listener.name.plain.plain.connections.max.reauth.ms': String(SESSION_MS),
    'listener.name.sasl.scram-sha-256.sasl.jaas.config': SCRAM_LOGIN,
    'listener.name.sasl.scram-sha-512.sasl.jaas.config': SCRAM_LOGIN,
    'listener.name.sasl.oauthbearer.sasl.jaas.config':
      'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'super.users': 'User:ANONYMOUS;User:alice',
  });
  const cluster = await kafkaCluster({ brokers: 1, settings });
  await addScramUser(cluster.brokers, 'alice', USERS.alice).catch(async (error: unknown) => {
    await cluster.stop();
    throw error;
  });
  const at = (port: number) => [`127.0.0.1:${port}`];
  return {
    cluster,
    open: cluster.brokers,
    tls: at(tls),
    sasl: at(sasl),
    plain: at(plain),
    authority,
    async stop() {
      await cluster.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** What the broker's default validator takes: signed by nobody. */
export function unsecuredToken(subject: string, nowMs: number): string {
  const part = (claims: object) => Buffer.from(JSON.stringify(claims)).toString('base64url');
  const now = Math.floor(nowMs / 1_000);
  return `${part({ alg: 'none' })}.${part({ sub: subject, iat: now - 5, exp: now + 3_600 })}.`;
}

const ITERATIONS = 4_096;
const SCRAM_LOGIN = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';

function plainLogin(): string {
  const users = Object.entries(USERS).map(([name, password]) => `user_${name}="${password}"`);
  return `org.apache.kafka.common.security.plain.PlainLoginModule required ${users.join(' ')};`;
}

/** The broker gets the salted password, never the password; it takes one mechanism of a user at a time. */
async function addScramUser(brokers: readonly string[], name: string, password: string): Promise<void> {
  const wire = new Wire(kafkajsClient({ brokers, clientId: 'test' }).connections, { brokers, requestTimeoutMs: 4_000 });
  for (const [mechanism, bytes, digest] of [
    [1, 32, 'sha256'],
    [2, 64, 'sha512'],
  ] as const) {
    const salt = randomBytes(16);
    const salted = pbkdf2Sync(password, salt, ITERATIONS, bytes, digest);
    const [failed] = (await wire.ask(alterScram(name, mechanism, salt, salted))).filter(({ error }) => error !== 0);
    if (failed !== undefined) throw new Error(`no SCRAM credentials: ${failed.error} ${failed.message}`);
  }
  await wire.close();
}

function alterScram(name: string, mechanism: number, salt: Buffer, salted: Buffer) {
  return flexible(
    51,
    'AlterUserScramCredentials',
    0,
    (body) => {
      body.compactArray([], () => undefined);
      body.compactArray([name], () => {
        body.compactString(name).int8(mechanism).int32(ITERATIONS).compactBytes(salt).compactBytes(salted).tags();
      });
      body.tags();
    },
    (answer) => {
      answer.int32();
      return answer.compactArray(() => {
        answer.compactString();
        const failed = { error: answer.int16(), message: answer.compactString() };
        answer.tags();
        return failed;
      });
    },
  );
}
