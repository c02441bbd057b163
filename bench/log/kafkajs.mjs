// The stock producer and consumer of kafkajs, set up as its documentation asks for exactly once.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { KEYS, VALUE, serve } from './contestant.mjs';

const [brokers, root, transactionalId] = process.argv.slice(2);
const { Kafka, logLevel } = createRequire(join(root, 'packages/kafka/package.json'))('kafkajs');
const kafka = new Kafka({ brokers: brokers.split(','), logLevel: logLevel.NOTHING });
const producer = kafka.producer({ transactionalId, idempotent: true, maxInFlightRequests: 1 });
await producer.connect();

await serve({
  async produce(topic, transactions, per) {
    for (let n = 0; n < transactions; n++) {
      const messages = [];
      for (let i = 0; i < per; i++) messages.push({ key: KEYS[(n * per + i) % KEYS.length], value: VALUE });
      const transaction = await producer.transaction();
      await transaction.send({ topic, messages });
      await transaction.commit();
    }
  },

  async read(topic, records) {
    const consumer = kafka.consumer({ groupId: `read-${transactionalId}-${Date.now()}` });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    let left = records;
    let bytes = 0;
    let startedAt;
    let cpuBefore;
    const done = new Promise((resolve) => {
      const eachBatch = async ({ batch }) => {
        // Joining the group is not counted, nor is the first fetch.
        startedAt ??= performance.now();
        cpuBefore ??= process.cpuUsage();
        for (const message of batch.messages) bytes += message.value.length;
        left -= batch.messages.length;
        if (left <= 0) resolve();
      };
      void consumer.run({ eachBatch });
    });
    await done;
    const seconds = (performance.now() - startedAt) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    await consumer.disconnect();
    return { bytes, seconds, cpuSeconds: (user + system) / 1e6 };
  },

  async latency(topic, groupId, transactions) {
    const milliseconds = [];
    for (let n = 0; n < transactions; n++) {
      const messages = [{ partition: 0, key: KEYS[n % KEYS.length], value: VALUE }];
      const startedAt = performance.now();
      const transaction = await producer.transaction();
      await transaction.send({ topic, messages });
      const topics = [{ topic, partitions: [{ partition: 0, offset: String(n) }] }];
      await transaction.sendOffsets({ consumerGroupId: groupId, topics });
      await transaction.commit();
      milliseconds.push(performance.now() - startedAt);
    }
    return { milliseconds };
  },
});
