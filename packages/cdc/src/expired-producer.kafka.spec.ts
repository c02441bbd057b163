import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { devServices, eventually, kafkaCluster } from '@headwater/testing';
import type { DevServices, KafkaCluster } from '@headwater/testing';
import { Source } from './source.testing.js';

// Named so that npm test sweeps it after a kill.
const directory = resolve('.headwater', `test-${process.pid}`);
const EXPIRATION_MS = 1_000;

let own: DevServices;
let cluster: KafkaCluster;
let source: Source;

beforeAll(async () => {
  cluster = await kafkaCluster({
    brokers: 1,
    advertise: 'proxy',
    settings: {
      'transactional.id.expiration.ms': String(EXPIRATION_MS),
      'transaction.remove.expired.transaction.cleanup.interval.ms': '100',
      'producer.id.expiration.ms': String(EXPIRATION_MS),
      'producer.id.expiration.check.interval.ms': '100',
    },
  });
  // WAL of other databases would keep the producer busy with positions.
  own = await devServices({
    directory,
    mode: 'auto',
    fresh: true,
    env: { ...process.env, DATABASE_URL: '', KAFKA_BROKERS: cluster.brokers.join(',') },
  });
  source = await Source.open(own.databaseUrl, cluster.brokers);
});
afterAll(async () => {
  await source?.close();
  await own?.stop();
  await cluster?.stop();
  rmSync(directory, { recursive: true, force: true });
});

it('C27 goes on under a fresh producer id when the broker has forgotten its own while it was idle', async () => {
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY)');
  await source.topics(['a']);
  const capture = await source.started(['a']);
  let renewed = 0;
  cluster.proxy.decide = ({ apiName }) => {
    if (apiName === 'InitProducerId') renewed += 1;
    return undefined;
  };
  let id = 0;
  for (const round of [1, 2]) {
    await eventually(
      async () => {
        await source.sql.query('INSERT INTO a VALUES ($1)', [++id]);
        await source.seenCount('a', id);
        expect(renewed).toBeGreaterThanOrEqual(round);
      },
      { timeoutMs: 60_000, intervalMs: 2 * EXPIRATION_MS },
    );
  }
  const seen = await source.seenCount('a', id);
  expect(seen.map(({ key }) => Number(key))).toEqual(Array.from({ length: id }, (_, i) => i + 1));
  expect(capture.status().state).toBe('streaming');
});
