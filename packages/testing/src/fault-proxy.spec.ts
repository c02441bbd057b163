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
    await proxy.release();
    await eventually(() => expect(atClient).toEqual([1, 2, 3]));
  });

  it('keeps a request aside while others overtake it, and delivers it at release', async () => {
    await start(({ n }) => (n === 0 ? { at: 'request', act: 'keep' } : undefined));
    send(1, 2);
    await eventually(() => expect(atClient).toEqual([2]));
    await proxy.release();
    await eventually(() => expect(atClient).toEqual([2, 1]));
  });

  it.each(['hold', 'keep'] as const)(
    'delivers what %s took into the past of a new connection, after its client is gone',
    async (act) => {
      await start(({ n }) => (n === 0 ? { at: 'request', act } : undefined));
      send(1);
      await proxy.strikes(1);
      client.destroy();
      client = await connected();
      send(2);
      await eventually(() => expect(atClient).toEqual([2]));
      await proxy.release(({ request }) => request.correlationId === 1);
      expect([atBroker, atClient]).toEqual([[2, 1], [2]]);
    },
  );

  it('releases only what is chosen', async () => {
    await start(({ n }) => ({ at: 'request', act: n === 1 ? 'hold' : 'keep' }));
    send(1, 2);
    await proxy.strikes(2);
    await proxy.release(({ act }) => act === 'keep');
    expect(atBroker).toEqual([1]);
    await proxy.release();
    expect(atBroker).toEqual([1, 2]);
  });

  it('settles a release whose connections are closed', async () => {
    await start(() => ({ at: 'request', act: 'keep' }));
    send(1);
    await proxy.strikes(1);
    const released = proxy.release();
    await proxy.close();
    await released;
  });

  it('mutes one connection in both directions and leaves it open, new ones pass', async () => {
    await start(({ correlationId }) => (correlationId === 2 ? { at: 'response', act: 'mute' } : undefined));
    send(1, 2, 3);
    await proxy.strikes(1);
    const silent = client;
    client = await connected();
    send(4);
    await eventually(() => expect(atClient).toEqual([1, 4]));
    expect([silent.destroyed, silent.readableEnded]).toEqual([false, false]);
    silent.destroy();
  });

  it('resets the connection after the broker has done it', async () => {
    await start(() => ({ at: 'response', act: 'reset' }));
    const failed = new Promise<NodeJS.ErrnoException>((resolve) => client.once('error', resolve));
    send(1);
    expect((await failed).code).toBe('ECONNRESET');
    expect([atBroker, atClient]).toEqual([[1], []]);
  });

  it('duplicates a request: the broker does it twice', async () => {
    await start(({ n }) => (n === 0 ? { at: 'request', act: 'duplicate' } : undefined));
    send(1, 2);
    await eventually(() => expect(atBroker).toEqual([1, 1, 2]));
  });

  it('flips one bit of the byte that is named, counted from either end', async () => {
    await start(({ n }) => ({ at: 'response', act: 'flip', byte: n === 0 ? 7 : -1 }));
    send(2, 4);
    await eventually(() => expect(atClient).toEqual([3, 5]));
  });

  it('sends what a rewrite makes of a response', async () => {
    const more = (frame: Buffer) => {
      const written = Buffer.from(frame);
      written.writeInt32BE(frame.readInt32BE(4) + 10, 4);
      return written;
    };
    await start(({ n }) => (n === 0 ? { at: 'response', act: 'rewrite', rewrite: more } : undefined));
    send(1, 2);
    await eventually(() => expect(atClient).toEqual([11, 2]));
  });

  it('tells of a strike when it happens, after the broker has done the request, and waits for it', async () => {
    const told: unknown[] = [];
    let go = (): void => undefined;
    await start(({ n }) =>
      n > 0
        ? undefined
        : {
            at: 'response',
            act: 'duplicate',
            onStrike: () =>
              new Promise<void>((resolve) => (go = resolve)).then(() => told.push([...atBroker], [...atClient])),
          },
    );
    send(1);
    await proxy.strikes(1);
    expect(proxy.log).toMatchObject([{ at: 'response', act: 'duplicate', request: { correlationId: 1 } }]);
    go();
    await eventually(() => expect(atClient).toEqual([1, 1]));
    expect(told).toEqual([[1], []]);
  });

  it('stands in front of several brokers and says which one a request is for', async () => {
    await start(() => undefined);
    const { port } = broker.address() as AddressInfo;
    const targets = [
      { host: '127.0.0.1', port: 1 },
      { host: '127.0.0.1', port },
    ];
    const pair = await faultProxy({
      target: targets,
      protocol: 'kafka',
      decide: () => ({ at: 'request', act: 'drop' }),
    });
    expect(pair.connect('broker-2', port)).toEqual({ host: '127.0.0.1', port: pair.ports[1] });
    expect(pair.connect('bootstrap', 9092)).toEqual({ host: '127.0.0.1', port: pair.ports[0] });
    const second = connect(pair.ports[1]!, pair.host);
    second.write(endTxn(7));
    await pair.strikes(1);
    expect(pair.log).toMatchObject([{ request: { target: 1, correlationId: 7, frame: endTxn(7) } }]);
    second.destroy();
    await pair.close();
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
  client = await connected();
}

async function connected(): Promise<Socket> {
  const socket = connect(proxy.port, proxy.host);
  socket.on('error', () => undefined);
  socket.on(
    'data',
    frameSplitter((frame) => atClient.push(frame.readInt32BE(4))),
  );
  await once(socket, 'connect');
  return socket;
}

/** EndTxn requests of client "c" with these correlation ids, in one write. */
function send(...correlationIds: number[]): void {
  client.write(Buffer.concat(correlationIds.map(endTxn)));
}

function endTxn(correlationId: number): Buffer {
  return Buffer.from(`0000000b001a0003${correlationId.toString(16).padStart(8, '0')}000163`, 'hex');
}
