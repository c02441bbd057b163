import { kafkajsClient } from '../../../packages/kafka/dist/kafkajs-hook.js';
import { listTransactions } from '../../../packages/kafka/dist/requests/admin.js';
import { Wire } from '../../../packages/kafka/dist/wire.js';

/** How many transactional producers of these names, `prefix` and what follows it, the brokers know. Asks them anew each time. */
export async function producerCounter(brokers) {
  const wire = new Wire(kafkajsClient({ brokers, clientId: 'soak' }).connections, { brokers, requestTimeoutMs: 4_000 });
  return {
    async count(prefix) {
      await wire.refresh([]);
      const answers = await Promise.all(wire.nodeIds().map((nodeId) => wire.send(nodeId, listTransactions([]))));
      return answers
        .flatMap(({ transactions }) => transactions)
        .filter(({ transactionalId }) => transactionalId.startsWith(prefix)).length;
    },
    close: () => wire.close(),
  };
}
