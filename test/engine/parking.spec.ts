import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { groupOf, parkedTopicOf, listParked, stateTopicOf } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, faultProxy, uniqueName } from '@headwater/testing';
import { readAll } from '../bank.js';

const brokers = process.env['KAFKA_BROKERS']!.split(',');
const script = fileURLToPath(new URL('./counting-process.mjs', import.meta.url));
const log = kafkaLog({ brokers });

afterAll(() => log.close());

describe('a processor killed with SIGKILL around a parking', () => {
  it.concurrent.each([
    ['before', 'EndTxn', 'request'],
    ['after', 'EndTxn', 'response'],
    ['before', 'TxnOffsetCommit', 'request'],
  ] as const)('S60 parks the poisoned record once, with state and offset, killed %s %s', async (_, apiName, at) => {
    const [name, input, output] = [uniqueName('poisoned'), uniqueName('input'), uniqueName('output')];
    await log.admin.ensureTopics([
      ...[input, output, parkedTopicOf(name)].map(
        (topic) => ({ topic, partitions: 1, cleanupPolicy: 'delete' }) as const,
      ),
      { topic: stateTopicOf(name), partitions: 1, cleanupPolicy: 'compact' },
    ]);
    const [host = '', port = ''] = brokers[0]!.split(':');
    const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
    const options = { brokers, name, input, output, instanceId: 'one', clientId: name, port: proxy.port };
    const start = (): ChildProcess => spawn(process.execPath, [script, JSON.stringify(options)], { stdio: 'ignore' });
    let child = start();
    try {
      let struck = false;
      proxy.decide = (request) => {
        if (struck || request.apiName !== apiName) return undefined;
        return { at, act: 'drop', onStrike: () => void (struck = child.kill('SIGKILL')) };
      };
      const writer = log.writer({ transactionalId: uniqueName('load') });
      await writer.fence();
      const values = ['add 1', 'poison', 'add 2'].map((value) => ({ key: 'a', value }));
      const records = [...values, { key: 'b', value: 'add 5' }];
      await writer.transact(
        records.map(({ key, value }) => ({ topic: input, key: Buffer.from(key), value: Buffer.from(value) })),
      );
      await writer.close();
      await eventually(() => expect(struck).toBe(true), { timeoutMs: 40_000 });
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      child = start();
      const ends = (await log.admin.offsets(input)).map(({ topic, partition, high }) => ({
        topic,
        partition,
        next: high,
      }));
      await eventually(
        async () =>
          expect(await log.admin.committedOffsets(groupOf(name), [{ topic: input, partition: 0 }])).toEqual(ends),
        { timeoutMs: 60_000 },
      );
      const texts = async (topic: string) =>
        (await readAll(log, topic)).map(({ key, value }) => `${String(key)} ${String(value)}`).sort();
      expect(await texts(parkedTopicOf(name))).toEqual(['a add 2', 'a poison']);
      expect(await texts(output)).toEqual(['a 1', 'b 5']);
      const [sequence, ...others] = await listParked(log, name);
      expect(others).toEqual([]);
      expect(sequence!.units.map(({ code }) => code)).toEqual(['HANDLER_FAILED', 'KEY_PARKED']);
    } finally {
      child.kill('SIGKILL');
      await proxy.close();
    }
  });
});
