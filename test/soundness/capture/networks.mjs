import { faultProxy, postgresFaultProxy } from '@headwater/testing';

const STATUS_UPDATE = 0x72;
/** How often the reply, or the request, to the end of a log transaction is lost; mostly with its connection, which costs no time-out. */
const END_LOSS = 0.1;

/**
 * Proxies between a capture and its servers. Ends of log transactions are lost at random, and during about half of the lives of a capture all its
 * acknowledgements: what was published comes again to the next one.
 */
export async function networks(databaseUrl, [broker], random) {
  const lost = { ends: 0, acknowledgements: 0 };
  let [unacknowledged, healed] = [false, false];
  const [host, port] = broker.split(':');
  const kafka = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
  kafka.decide = ({ apiName }) => {
    if (healed || apiName !== 'EndTxn' || !random.chance(END_LOSS)) return undefined;
    lost.ends += 1;
    return { at: random.pick(['request', 'response']), act: random.chance(0.1) ? 'drop' : 'close' };
  };
  const postgres = await postgresFaultProxy(databaseUrl, ({ from, type, frame }) => {
    if (!unacknowledged || from !== 'client' || type !== 'd' || frame[5] !== STATUS_UPDATE) return undefined;
    lost.acknowledgements += 1;
    return { act: 'drop' };
  });
  return {
    databaseUrl: postgres.url,
    kafkaPort: kafka.port,
    lost,
    /** Another life of the capture begins. */
    change: () => void (unacknowledged = random.chance(0.5)),
    /** Nothing is lost any more. */
    heal() {
      healed = true;
      unacknowledged = false;
    },
    close: () => Promise.all([kafka.close(), postgres.close()]),
  };
}
