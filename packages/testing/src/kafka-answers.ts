import { metadata } from './kafka-metadata.js';

/** True when a broker on this loopback port answers Metadata and counts `nodeId`, or anybody, among the living brokers. */
export async function kafkaAnswers(port: number, nodeId?: number): Promise<boolean> {
  try {
    const { brokers } = await metadata(port, []);
    // An open port may still belong to a fenced broker.
    return nodeId === undefined ? brokers.length > 0 : brokers.includes(nodeId);
  } catch {
    return false;
  }
}
