import net from 'node:net';

/** A request on its way through the proxy. */
export interface ProxiedRequest {
  readonly apiKey: number;
  readonly apiVersion: number;
  /** The body after the request header's client id; for EndTxn and others enough to look into. */
  readonly frame: Buffer;
}

/** `close` cuts the connection, `drop` swallows the frame. */
export interface Fault {
  readonly at: 'request' | 'reply';
  readonly act: 'drop' | 'close';
}

export interface FaultProxy {
  /** Reroutes every advertised address into the proxy: the `connect` option of kafkaLog. */
  readonly connect: (host: string, port: number) => { host: string; port: number };
  /** How often a fault struck. */
  struck(): number;
  close(): Promise<void>;
}

export const PRODUCE = 0;
export const END_TXN = 26;

/** A TCP proxy that understands Kafka's frames and loses the requests or replies that `decide` names. */
export async function faultProxy(
  broker: string,
  decide: (request: ProxiedRequest) => Fault | undefined,
): Promise<FaultProxy> {
  const [host = '', port = ''] = broker.split(':');
  const open = new Set<() => void>();
  let struck = 0;
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(port), host);
    const replies = new Map<number, Fault>();
    const end = () => {
      open.delete(end);
      client.destroy();
      upstream.destroy();
    };
    open.add(end);
    for (const socket of [client, upstream]) socket.setNoDelay(true).on('error', end).on('close', end);
    client.on(
      'data',
      framed((frame) => {
        const fault = decide({ apiKey: frame.readInt16BE(4), apiVersion: frame.readInt16BE(6), frame });
        if (fault?.at === 'reply') replies.set(frame.readInt32BE(8), fault);
        if (fault?.at !== 'request') return void upstream.write(frame);
        struck++;
        if (fault.act === 'close') end();
      }),
    );
    upstream.on(
      'data',
      framed((frame) => {
        const fault = replies.get(frame.readInt32BE(4));
        replies.delete(frame.readInt32BE(4));
        if (fault === undefined) return void client.write(frame);
        struck++;
        if (fault.act === 'close') end();
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address() as net.AddressInfo;
  return {
    connect: () => ({ host: '127.0.0.1', port: address.port }),
    struck: () => struck,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const end of open) end();
      }),
  };
}

/** Calls with each whole frame, its length included. */
function framed(onFrame: (frame: Buffer) => void): (data: Buffer) => void {
  let rest = Buffer.alloc(0);
  return (data) => {
    rest = rest.length === 0 ? Buffer.from(data) : Buffer.concat([rest, data]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      const frame = rest.subarray(0, end);
      rest = rest.subarray(end);
      onFrame(frame);
    }
  };
}
