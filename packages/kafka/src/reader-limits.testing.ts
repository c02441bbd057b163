import { testBrokers } from './broker.testing.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { KafkaReader } from './reader.js';
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
