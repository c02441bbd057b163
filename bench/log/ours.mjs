import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { KEYS, VALUE, serve } from './contestant.mjs';

const [brokers, root, transactionalId] = process.argv.slice(2);
const { kafkaLog } = await import(pathToFileURL(join(root, 'packages/kafka/dist/index.js')).href);
const log = kafkaLog({ brokers: brokers.split(',') });
const writer = log.writer({ transactionalId });
await writer.fence();

await serve({
  async produce(topic, transactions, per) {
    for (let n = 0; n < transactions; n++) {
      const records = [];
      for (let i = 0; i < per; i++) records.push({ topic, key: KEYS[(n * per + i) % KEYS.length], value: VALUE });
      expectCommitted(await writer.transact(records));
    }
  },

  async read(topic, records) {
    const reader = log.reader();
    for (const { partition, start } of await log.admin.offsets(topic)) reader.seek(topic, partition, start);
    let bytes = 0;
    for (let left = records; left > 0;) {
      for (const batch of await reader.poll()) {
        left -= batch.records.length;
        for (const record of batch.records) bytes += record.value.length;
      }
    }
    await reader.close();
    return { bytes };
  },

  async latency(topic, groupId, transactions) {
    const membership = { groupId, memberId: '', generation: -1 };
    const milliseconds = [];
    for (let n = 0; n < transactions; n++) {
      const record = { topic, partition: 0, key: KEYS[n % KEYS.length], value: VALUE };
      const offsets = { membership, offsets: [{ topic, partition: 0, next: n }] };
      const startedAt = performance.now();
      expectCommitted(await writer.transact([record], offsets));
      milliseconds.push(performance.now() - startedAt);
    }
    return { milliseconds };
  },
});

function expectCommitted(outcome) {
  if (outcome.outcome !== 'committed') throw new Error(outcome.outcome, { cause: outcome.cause });
}
