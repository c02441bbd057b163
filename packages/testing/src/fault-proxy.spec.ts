import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { eventually } from './eventually.js';
import { faultProxy, type Decide, type FaultProxy } from './fault-proxy.js';
import { frameSplitter } from './kafka-frames.js';

let broker: Server;
let proxy: FaultProxy;
let client: Socket;
/** Correlation ids in the order in which each side saw them. */
let atBroker: number[];
let atClient: number[];

beforeEach(async () => {
  atBroker = [];
  atClient = [];
  broker = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on(
      'data',
      frameSplitter((request) => {
        atBroker.push(request.readInt32BE(8));
        const response = Buffer.alloc(8);
        response.writeInt32BE(4, 0);
        request.copy(response, 4, 8, 12);
        socket.write(response);
      }),
    );
  });
  broker.listen(0, '127.0.0.1');
  await once(broker, 'listening');
});

afterEach(async () => {
  client.destroy();
  await proxy.close();
  broker.close();
});

describe('kafka', () => {
  it('passes requests and responses in order', async () => {
    await start(() => undefined);
    send(1, 2, 3);
    await eventually(() => expect(atClient).toEqual([1, 2, 3]));
    expect(proxy.log).toEqual([]);
  });

  it('drops a request: the broker never sees it, the connection lives', async () => {
    await start(({ n }) => (n === 0 ? { at: 'request', act: 'drop' } : undefined));
    send(1, 2);
    await eventually(() => expect(atClient).toEqual([2]));
    expect(atBroker).toEqual([2]);
    expect(proxy.log).toMatchObject([{ at: 'request', act: 'drop', request: { apiName: 'EndTxn', clientId: 'c' } }]);
  });

  it('drops a response: the broker has done it, the client never hears', async () => {
    await start(({ n }) => (n === 0 ? { at: 'response', act: 'drop' } : undefined));
    send(1, 2);
    await eventually(() => expect(atClient).toEqual([2]));
    expect(atBroker).toEqual([1, 2]);
  });

  it('closes on a response after the broker has done it', async () => {
    await start(() => ({ at: 'response', act: 'close' }));
    const closed = once(client, 'close');
    send(1);
    await closed;
    expect([atBroker, atClient]).toEqual([[1], []]);
  });

  it('holds a request and all behind it until release', async () => {
    await start(({ n }) => (n === 1 ? { at: 'request', act: 'hold' } : undefined));
    send(1, 2, 3);
    await eventually(() => expect(atClient).toEqual([1]));
    expect(atBroker).toEqual([1]);
    proxy.release();
    await eventually(() => expect(atClient).toEqual([1, 2, 3]));
  });

  it('delays a response and keeps the order', async () => {
    await start(({ n }) => (n === 0 ? { at: 'response', act: 'delay', ms: 30 } : undefined));
    send(1, 2);
    await eventually(() => expect(atClient).toEqual([1, 2]));
  });

  it('takes another rule while it runs, and cuts everything', async () => {
    await start(() => undefined);
    proxy.decide = () => ({ at: 'request', act: 'drop' });
    send(1);
    await eventually(() => expect(proxy.log).toHaveLength(1));
    const closed = once(client, 'close');
    proxy.cutAll();
    await closed;
    expect(atBroker).toEqual([]);
  });
});

describe('raw', () => {
  it('is half-open while paused, and delivers after resume', async () => {
    await start(() => undefined, 'raw');
    send(1);
    await eventually(() => expect(atClient).toEqual([1]));
    proxy.pause();
    send(2);
    const late = connect(proxy.port, proxy.host);
    await once(late, 'connect');
    expect([atBroker, client.destroyed]).toEqual([[1], false]);
    proxy.resume();
    await eventually(() => expect(atClient).toEqual([1, 2]));
    late.destroy();
  });
});

async function start(decide: Decide, protocol: 'kafka' | 'raw' = 'kafka'): Promise<void> {
  const { port } = broker.address() as AddressInfo;
  proxy = await faultProxy({ target: { host: '127.0.0.1', port }, protocol, decide });
  client = connect(proxy.port, proxy.host);
  client.on('error', () => undefined);
  client.on(
    'data',
    frameSplitter((frame) => atClient.push(frame.readInt32BE(4))),
  );
  await once(client, 'connect');
}

/** EndTxn requests of client "c" with these correlation ids, in one write. */
function send(...correlationIds: number[]): void {
  const frames = correlationIds.map((id) => {
    const hex = id.toString(16).padStart(8, '0');
    return Buffer.from(`0000000b001a0003${hex}000163`, 'hex');
  });
  client.write(Buffer.concat(frames));
}
