import { testBrokers } from './broker.testing.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { KafkaReader } from './reader.js';
import { fetch } from './requests/fetch.js';
import { Wire } from './wire.js';

/** A wire of its own to the brokers of the test run. */
export function testWire(): Wire {
  const brokers = testBrokers();
  return new Wire(kafkajsClient({ brokers, clientId: 'test' }).connections, { brokers, requestTimeoutMs: 4_000 });
}

/** A reader whose polls hold little, and how to close it. */
export function smallReader(maxBytes: number): { reader: KafkaReader; close: () => Promise<void> } {
  const wire = testWire();
  return { reader: new KafkaReader(wire, { maxBytes }), close: () => wire.close() };
}

/** The headers of the batches that a fetch from the start of partition 0 brings: codec number and count of records. */
export async function fetchedHeaders(topic: string): Promise<{ codec: number; records: number }[]> {
  const wire = testWire();
  const [leader = -1] = (await wire.leaders(topic)) ?? [];
  const asked = [{ topic, partition: 0, offset: 0, topicId: wire.knownTopicId(topic)! }];
  const limits = { maxWaitMs: 100, maxBytes: 1 << 20, partitionMaxBytes: 1 << 20 };
  const { partitions } = await wire.send(leader, fetch(asked, limits, 4_000));
  await wire.close();
  const { bytes } = partitions[0]!;
  const headers = [];
  for (let at = 0; at + 61 <= bytes.length; at += 12 + bytes.readInt32BE(at + 8)) {
    headers.push({ codec: bytes.readInt16BE(at + 21) & 7, records: bytes.readInt32BE(at + 57) });
  }
  return headers;
}
