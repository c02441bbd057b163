import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import kafkajs, { type Admin } from 'kafkajs';
import type { Log, LogReader, OutRecord } from '@headwater/core';
import { faultProxy } from '@headwater/testing';
import { committedRecords, newTopic, recordsOf, texts, unique } from './broker.testing.js';
import { until } from './until.testing.js';
import { kafkaLog, type KafkaOptions } from './kafka-log.js';
import { kafkajsClient } from './kafkajs-hook.js';
import type { SaslOptions } from './sasl.js';
import { USERS, securedBroker, unsecuredToken, type SecuredBroker } from './secured-broker.testing.js';

const alice = { username: 'alice', password: USERS.alice };
const bearer = (value: string): SaslOptions => ({
  mechanism: 'oauthbearer',
  oauthBearerProvider: () => Promise.resolve({ value }),
});

describe('a secured broker', () => {
  let broker: SecuredBroker;
  let admin: Admin;
  const logs: Log[] = [];
  beforeAll(async () => {
    broker = await securedBroker();
    admin = kafkajsClient({ brokers: broker.open, clientId: 'test' }).kafka.admin();
    await admin.connect();
  });
  afterAll(async () => {
    for (const log of logs) await log.close();
    await admin?.disconnect();
    await broker?.stop();
  });

  const opened = (options: KafkaOptions): Log => {
    const log = kafkaLog(options);
    logs.push(log);
    return log;
  };
  const overTls = (sasl?: SaslOptions): Log =>
    opened({ brokers: sasl ? broker.sasl : broker.tls, ssl: { ca: [broker.authority.ca] }, sasl });
  const one = (topic: string, value: string): OutRecord => ({
    topic,
    partition: 0,
    key: null,
    value: Buffer.from(value),
  });

  const good: [string, SaslOptions | undefined][] = [
    ['TLS alone', undefined],
    ['PLAIN', { mechanism: 'plain', ...alice }],
    ['SCRAM-SHA-256', { mechanism: 'scram-sha-256', ...alice }],
    ['SCRAM-SHA-512', { mechanism: 'scram-sha-512', ...alice }],
    ['OAUTHBEARER', bearer(unsecuredToken('alice', Date.now()))],
  ];

  it.each(good)('writes, reads and keeps a group over TLS with %s', async (_, sasl) => {
    const log = overTls(sasl);
    const topic = await newTopic(log);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const groupId = unique('group');
    const group = log.group({ groupId, topics: [topic] });
    const outcomes: unknown[] = [];
    const running = group.run(async ({ membership, partitions, signal }) => {
      expect(partitions).toEqual([{ topic, partition: 0 }]);
      const offsets = { membership, offsets: [{ topic, partition: 0, next: 7 }] };
      outcomes.push(await writer.transact([one(topic, 'in the group')], offsets));
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    });
    await until(() => outcomes[0]);
    expect(outcomes).toEqual([expect.objectContaining({ outcome: 'committed' })]);
    await group.stop();
    await running;
    expect(texts(await committedRecords(log, topic))).toEqual(['in the group']);
    expect(await log.admin.committedOffsets(groupId, [{ topic, partition: 0 }])).toEqual([
      { topic, partition: 0, next: 7 },
    ]);
  });

  const wrong: [string, SaslOptions][] = [
    ['PLAIN', { mechanism: 'plain', ...alice, password: 'wrong' }],
    ['SCRAM-SHA-256', { mechanism: 'scram-sha-256', ...alice, password: 'wrong' }],
    ['SCRAM-SHA-512', { mechanism: 'scram-sha-512', username: 'nobody', password: 'wrong' }],
    ['OAUTHBEARER', bearer('not a token')],
  ];

  it.each(wrong)('refuses wrong credentials of %s everywhere, at once and not to be retried', async (_, sasl) => {
    const log = overTls(sasl);
    const refusal = { code: 'KAFKA_AUTHENTICATION_FAILED', retryable: false };
    await expect(log.admin.partitionCounts(['any'])).rejects.toMatchObject(refusal);
    await expect(log.writer({ transactionalId: unique('writer') }).fence()).rejects.toMatchObject(refusal);
    const reader = log.reader();
    reader.seek('any', 0, 0);
    // The broker takes its time to refuse.
    await expect(reader.poll({ maxWaitMs: 10_000 })).rejects.toMatchObject(refusal);
  });

  it('does not trust a certificate that it was not told of', async () => {
    const log = opened({ brokers: broker.tls, ssl: true });
    await expect(log.admin.partitionCounts(['any'])).rejects.toMatchObject({
      code: 'KAFKA_CERTIFICATE_UNTRUSTED',
      retryable: false,
      message: expect.stringMatching(
        / broker 127\.0\.0\.1:\d+ is not trusted: .*certificate.* Name the certificate of its CA/,
      ),
    });
  });

  it('takes a connection that breaks in the middle of the authentication for lost, not for refused', async () => {
    const [host, port] = broker.plain[0]!.split(':') as [string, string];
    let left = 2;
    const proxy = await faultProxy({
      target: { host, port: Number(port) },
      protocol: 'kafka',
      decide: ({ apiName }) =>
        apiName === 'SaslAuthenticate' && left-- > 0 ? { at: 'response', act: 'close' } : undefined,
    });
    const log = opened({ brokers: broker.plain, sasl: { mechanism: 'plain', ...alice }, connect: proxy.connect });
    await expect(log.admin.partitionCounts(['any'])).rejects.toMatchObject({
      code: 'KAFKA_UNREACHABLE',
      retryable: true,
    });
    await until(async () => (await log.admin.partitionCounts(['any']).catch(() => undefined)) && true);
    expect(proxy.log).toHaveLength(2);
    await log.close();
    await proxy.close();
  });

  it('loses and doubles nothing while its sessions end and are renewed under load', async () => {
    const [host, port] = broker.plain[0]!.split(':') as [string, string];
    const authenticated = new Map<string, number>();
    const proxy = await faultProxy({
      target: { host, port: Number(port) },
      protocol: 'kafka',
      decide: ({ apiName }) => void authenticated.set(apiName, (authenticated.get(apiName) ?? 0) + 1),
    });
    const log = opened({ brokers: broker.plain, sasl: { mechanism: 'plain', ...alice }, connect: proxy.connect });
    const topic = await newTopic(log);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const reader = log.reader();
    reader.seek(topic, 0, 0);
    const first = authenticated.get('SaslAuthenticate')!;
    const read: (string | null)[] = [];
    let written = 0;
    // Writer, reader and the shared connection: each authenticates again three times or more.
    await until(async () => {
      expect(await writer.transact([one(topic, `${written}`)])).toMatchObject({ outcome: 'committed' });
      written++;
      read.push(...texts(recordsOf(await reader.poll({ maxWaitMs: 5 }))));
      return authenticated.get('SaslAuthenticate')! >= first + 9 || undefined;
    });
    await until(async () => {
      read.push(...texts(recordsOf(await reader.poll())));
      return read.length >= written || undefined;
    });
    expect(read).toEqual(Array.from({ length: written }, (_, n) => `${n}`));
    await log.close();
    await proxy.close();
  });

  it('S106 names the topic whose ACL was taken away, lets other readers go on, and recovers when it is given back', async () => {
    const all = opened({ brokers: broker.open });
    const [barred, free] = [await newTopic(all), await newTopic(all)];
    const writer = all.writer({ transactionalId: unique('writer') });
    await writer.fence();
    await allow(barred);
    await allow(free);
    const bob = overTls({ mechanism: 'plain', username: 'bob', password: USERS.bob });
    const [ofBarred, ofFree] = [bob.reader(), bob.reader()];
    ofBarred.seek(barred, 0, 0);
    ofFree.seek(free, 0, 0);
    await writer.transact([one(barred, 'before'), one(free, 'before')]);
    expect(await readTo(ofBarred, 'before')).toEqual(['before']);
    await forbid(barred);
    await writer.transact([one(barred, 'meanwhile'), one(free, 'meanwhile')]);
    const refusal = await until(() =>
      ofBarred.poll({ maxWaitMs: 10_000 }).then(
        () => undefined,
        (error: unknown) => error,
      ),
    );
    expect(refusal).toMatchObject({
      code: 'KAFKA_REFUSED',
      retryable: false,
      facts: { topic: barred, errorName: 'TOPIC_AUTHORIZATION_FAILED' },
      message: expect.stringContaining('Grant this client the missing ACL'),
    });
    expect(await readTo(ofFree, 'meanwhile')).toEqual(['before', 'meanwhile']);
    await expect(ofBarred.poll({ maxWaitMs: 10_000 })).rejects.toMatchObject({
      code: 'KAFKA_REFUSED',
      facts: { topic: barred },
    });
    await allow(barred);
    await writer.transact([one(barred, 'after')]);
    expect(await readTo(ofBarred, 'after')).toEqual(['meanwhile', 'after']);
  });

  /** Reads on until `last` has come; a refusal that has not reached the broker yet is passed by. */
  async function readTo(reader: LogReader, last: string): Promise<(string | null)[]> {
    const seen: (string | null)[] = [];
    return until(async () => {
      seen.push(...texts(recordsOf(await reader.poll().catch(() => []))));
      return seen.at(-1) === last ? seen : undefined;
    });
  }

  const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } = kafkajs;

  const readAcl = (topic: string) => ({
    resourceType: AclResourceTypes.TOPIC,
    resourceName: topic,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: 'User:bob',
    host: '*',
    operation: AclOperationTypes.READ,
    permissionType: AclPermissionTypes.ALLOW,
  });

  async function allow(topic: string): Promise<void> {
    expect(await admin.createAcls({ acl: [readAcl(topic)] })).toBe(true);
  }

  async function forbid(topic: string): Promise<void> {
    const { filterResponses } = await admin.deleteAcls({ filters: [readAcl(topic)] });
    expect(filterResponses[0]!.matchingAcls).toHaveLength(1);
  }
});
