import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Log, OutRecord } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { kafkaCluster, type KafkaCluster } from './kafka-cluster.js';
import { javaHash } from './kafka-leaders.js';
import { identify } from './process-identity.js';
import { uniqueName } from './unique-name.js';

describe('three brokers', () => {
  let cluster: KafkaCluster;
  let log: Log;
  let topic: string;
  beforeAll(async () => {
    cluster = await kafkaCluster({ brokers: 3 });
    log = kafkaLog({ brokers: cluster.brokers });
    topic = uniqueName('topic');
    await log.admin.ensureTopics([{ topic, partitions: 3, cleanupPolicy: 'delete' }]);
  });
  afterAll(async () => {
    await log?.close();
    await cluster?.stop();
  });

  const records = (value: string): OutRecord[] =>
    [0, 1, 2].map((partition) => ({ topic, partition, key: null, value: Buffer.from(value) }));

  it('share the leaderships, and move one to whom is named or to another', async () => {
    const leaders = await Promise.all([0, 1, 2].map((partition) => cluster.leaderOf(topic, partition)));
    expect(new Set(leaders)).toEqual(new Set([1, 2, 3]));
    const wanted = leaders[1]!;
    expect(await cluster.moveLeader(topic, 0, wanted)).toBe(wanted);
    expect(await cluster.leaderOf(topic, 0)).toBe(wanted);
    expect(await cluster.moveLeader(topic, 0)).not.toBe(wanted);
  });

  it('move the coordinators of a transactional id and of a group', async () => {
    const id = uniqueName('writer');
    const from = await cluster.transactionCoordinator(id);
    const to = (from % 3) + 1;
    expect(await cluster.moveTransactionCoordinator(id, to)).toBe(to);
    const group = uniqueName('group');
    const groupFrom = await cluster.groupCoordinator(group);
    expect(await cluster.moveGroupCoordinator(group)).not.toBe(groupFrom);
    const writer = log.writer({ transactionalId: id });
    await writer.fence();
    expect(await writer.transact(records('moved'))).toMatchObject({ outcome: 'committed' });
    await writer.close();
  });

  it('survive the death and the silence of one, and are whole again after heal', async () => {
    const writer = log.writer({ transactionalId: uniqueName('writer') });
    await writer.fence();
    const dead = cluster.node(await cluster.leaderOf(topic, 1));
    await dead.kill();
    expect(dead.pid).toBeUndefined();
    expect(await cluster.leaderOf(topic, 1)).not.toBe(dead.nodeId);
    expect(await writer.transact(records('killed'))).toMatchObject({ outcome: 'committed' });
    await cluster.heal([topic]);
    const silent = cluster.node(await cluster.leaderOf(topic, 2));
    silent.pause();
    expect(await cluster.leaderOf(topic, 2)).not.toBe(silent.nodeId);
    await cluster.heal([topic]);
    expect(await writer.transact(records('silent'))).toMatchObject({ outcome: 'committed' });
    await writer.close();
  });

  it('reach clients through the proxy, and one another past it', async () => {
    for (const partition of [0, 1, 2]) await cluster.moveLeader(topic, partition, partition + 1);
    const proxied = kafkaLog({ brokers: cluster.brokers, connect: cluster.proxy.connect });
    const seen = new Set<string>();
    cluster.proxy.decide = ({ apiName, target }) => {
      seen.add(`${apiName}/${target}`);
      return undefined;
    };
    const writer = proxied.writer({ transactionalId: uniqueName('writer') });
    await writer.fence();
    expect(await writer.transact(records('proxied'))).toMatchObject({ outcome: 'committed' });
    await proxied.close();
    cluster.proxy.decide = () => undefined;
    for (const target of [0, 1, 2]) expect(seen).toContain(`Produce/${target}`);
    const names = [...seen].map((name) => name.split('/')[0]);
    // Markers of the coordinator, and the fetches of the followers.
    expect(names).not.toContain('WriteTxnMarkers');
    expect(names).not.toContain('Fetch');
  });
});

it('ends and removes what a killed process left', async () => {
  const door = new URL('../dist/index.js', import.meta.url).href;
  const code = `const { kafkaCluster } = await import('${door}');
    const { nodes } = await kafkaCluster({ brokers: 1 });
    process.stdout.write(String(nodes[0].pid) + '\\n');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  const broker = identify(Number(said));
  expect(broker).toBeDefined();
  const directories = (): string[] =>
    readdirSync(join(tmpdir(), 'headwater-clusters')).filter((name) => name.startsWith(`${child.pid}_`));
  expect(directories()).toHaveLength(1);
  child.kill('SIGKILL');
  await once(child, 'exit');
  const cluster = await kafkaCluster({ brokers: 1 });
  expect(identify(broker!.pid)?.startTime).not.toBe(broker!.startTime);
  expect(directories()).toEqual([]);
  const own = `${process.pid}_`;
  const kept = readdirSync(join(tmpdir(), 'headwater-clusters')).filter((name) => name.startsWith(own));
  expect(kept.length).toBeGreaterThan(0);
  await cluster.stop();
  await cluster.stop();
  for (const name of kept) expect(existsSync(join(tmpdir(), 'headwater-clusters', name))).toBe(false);
});

it('finds the partition of an id as Kafka does', () => {
  // String.hashCode of Java: "polygenelubricants" has the smallest integer.
  expect(['writer-0', 'feeder-928bda74~2', 'polygenelubricants', ''].map(javaHash)).toEqual([
    1_846_453_930, 2_036_268_269, 0, 0,
  ]);
});
