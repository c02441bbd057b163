import { randomUUID } from 'node:crypto';
import type { FetchedBatch, Log, LogRecord } from '@headwater/core';
import { faultProxy, settledOffsets, type FaultProxy } from '@headwater/testing';
import { kafkaLog, type KafkaOptions } from './kafka-log.js';

/** The brokers of the test run, from KAFKA_BROKERS. */
export function testBrokers(): string[] {
  const brokers = process.env['KAFKA_BROKERS'];
  if (!brokers)
    throw new Error('KAFKA_BROKERS is not set. Start a broker and set it, for example KAFKA_BROKERS=127.0.0.1:9092.');
  return brokers.split(',');
}

export function testLog(options: Partial<KafkaOptions> = {}): Log {
  return kafkaLog({ brokers: testBrokers(), ...options });
}

/** A name no other test uses. */
export function unique(name: string): string {
  return `${name}-${randomUUID().slice(0, 8)}`;
}

export async function newTopic(log: Log, partitions = 1, config: Record<string, string> = {}): Promise<string> {
  const topic = unique('topic');
  await log.admin.ensureTopics([{ topic, partitions, cleanupPolicy: 'delete', config }]);
  return topic;
}

/** Everything committed in the topic, by partition and offset, once no transaction is open on it. */
export async function committedRecords(log: Log, topic: string): Promise<LogRecord[]> {
  const offsets = await settledOffsets(log, topic);
  const ends = new Map(offsets.map((of) => [of.partition, of]));
  const reader = log.reader();
  for (const { partition, start, lastStable } of ends.values())
    if (start < lastStable) reader.seek(topic, partition, start);
  const records: LogRecord[] = [];
  const left = new Set([...ends.values()].filter((of) => of.start < of.lastStable).map((of) => of.partition));
  while (left.size > 0) {
    for (const batch of await reader.poll()) {
      records.push(...batch.records);
      if (batch.nextOffset >= ends.get(batch.partition)!.lastStable) left.delete(batch.partition);
    }
  }
  await reader.close();
  return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
}

export function texts(records: readonly LogRecord[]): (string | null)[] {
  return records.map(({ value }) => value?.toString() ?? null);
}

export function recordsOf(batches: readonly FetchedBatch[]): LogRecord[] {
  return batches.flatMap(({ records }) => [...records]);
}

/** A fault proxy in front of the first broker, and logs whose connections go through it; a log is told from others by its client id. */
export async function lossyNetwork(): Promise<{
  readonly proxy: FaultProxy;
  log(options?: Partial<KafkaOptions>): Log;
  close(): Promise<void>;
}> {
  const [host = '', port = ''] = testBrokers()[0]!.split(':');
  const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
  const logs: Log[] = [];
  return {
    proxy,
    log(options) {
      const made = testLog({ connect: proxy.connect, requestTimeoutMs: 1_000, ...options });
      logs.push(made);
      return made;
    },
    async close() {
      proxy.decide = () => undefined;
      await Promise.all(logs.map((log) => log.close()));
      await proxy.close();
    },
  };
}
