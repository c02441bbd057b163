import { connect } from 'node:net';

/** True when a broker on this loopback port answers Metadata and counts itself among the living brokers. */
export function kafkaAnswers(port: number, timeoutMs = 2000): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let received = Buffer.alloc(0);
    const settle = (answer: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => settle(false), timeoutMs);
    socket.on('connect', () => socket.write(METADATA_V1_WITHOUT_TOPICS));
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      // Size, correlation id, then the array of brokers: an open port may still belong to a fenced broker.
      if (received.length >= 12) settle(received.readInt32BE(8) > 0);
    });
    socket.on('error', () => settle(false));
    socket.on('close', () => settle(false));
  });
}

// Size 16: api key 3, version 1, correlation id 1, client id "up", no topics.
const METADATA_V1_WITHOUT_TOPICS = Buffer.from(
  '00000010' + '0003' + '0001' + '00000001' + '00027570' + '00000000',
  'hex',
);
