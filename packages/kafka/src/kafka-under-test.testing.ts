import { faultProxy } from '@headwater/testing';
import type { LogUnderTest } from '@headwater/testing/log-suite';
import { kafkaLog } from './kafka-log.js';

/** Kafka for the driver suite. The lossy client goes through a proxy of its own in front of each of the brokers named. */
export function kafkaUnderTest(brokers: () => readonly string[]): LogUnderTest & { close(): Promise<void> } {
  const proxies: { close(): Promise<void> }[] = [];
  return {
    open: () => kafkaLog({ brokers: brokers() }),
    async openLossy() {
      let lost: 'request' | 'answer' | 'nothing' = 'nothing';
      const ways = new Map<string, { host: string; port: number }>();
      for (const broker of brokers()) {
        const [host, port] = broker.split(':') as [string, string];
        const proxy = await faultProxy({
          target: { host, port: Number(port) },
          protocol: 'kafka',
          decide: ({ apiName }) =>
            lost !== 'nothing' && apiName === 'EndTxn'
              ? { at: lost === 'request' ? 'request' : 'response', act: 'close' }
              : undefined,
        });
        proxies.push(proxy);
        ways.set(broker, { host: proxy.host, port: proxy.port });
      }
      const connect = (host: string, port: number) => ways.get(`${host}:${port}`) ?? { host, port };
      const log = kafkaLog({ brokers: brokers(), requestTimeoutMs: 1_000, connect });
      return { log, lose: (what) => void (lost = what) };
    },
    async close() {
      for (const proxy of proxies.splice(0)) await proxy.close();
    },
  };
}
