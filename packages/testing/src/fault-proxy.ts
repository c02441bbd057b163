import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { frameSplitter, readRequest, responseCorrelationId, type KafkaRequest } from './kafka-frames.js';

/**
 * What happens to one request or its response.
 * drop: swallowed, the client waits. close: swallowed, and the connection is cut. delay: late by `ms`, as is everything behind
 * it on that connection. hold: kept back, with everything behind it, until `release()`.
 */
export interface Fault {
  readonly at: 'request' | 'response';
  readonly act: 'drop' | 'close' | 'delay' | 'hold';
  readonly ms?: number;
}

export interface ProxiedRequest extends KafkaRequest {
  /** Counts the requests of all connections, from 0. */
  readonly n: number;
}

export type Decide = (request: ProxiedRequest) => Fault | undefined;

export interface FaultProxyOptions {
  readonly target: { readonly host: string; readonly port: number };
  /** Loopback port to listen on; a free one by default. A Kafka broker must advertise it, or the client connect through it. */
  readonly listen?: number;
  /** `kafka` sees requests and responses; `raw` only bytes. */
  readonly protocol: 'kafka' | 'raw';
  /** The first rule (kafka only); may be replaced at any time. */
  readonly decide?: Decide;
}

/** A TCP proxy on loopback that loses, delays and cuts on demand. */
export interface FaultProxy {
  readonly host: string;
  readonly port: number;
  /** Faults done so far, in order. */
  readonly log: readonly (Fault & { readonly request: ProxiedRequest })[];
  decide: Decide;
  /** Closes every connection; new ones are accepted. */
  cutAll(): void;
  /** Lets everything pass that `hold` kept back. */
  release(): void;
  /** Half-open: connections stay, nothing passes in either direction, new ones are accepted and stay silent. */
  pause(): void;
  resume(): void;
  /** Cuts everything and stops listening; may be called twice. */
  close(): Promise<void>;
}

export async function faultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const state: ProxyState = {
    options,
    links: new Set(),
    log: [],
    held: [],
    decide: options.decide ?? (() => undefined),
    count: 0,
    paused: false,
  };
  const server = createServer((client) => link(state, client));
  const port = await listen(server, options.listen ?? 0);
  const cutAll = (): void => [...state.links].forEach((one) => one.cut());
  const release = (): void => state.held.splice(0).forEach((pass) => pass());
  const pauseAll = (paused: boolean): void => {
    state.paused = paused;
    for (const one of state.links)
      for (const socket of one.sockets)
        if (paused) socket.pause();
        else socket.resume();
  };
  return {
    host: '127.0.0.1',
    port,
    log: state.log,
    get decide() {
      return state.decide;
    },
    set decide(rule) {
      state.decide = rule;
    },
    cutAll,
    release,
    pause: () => pauseAll(true),
    resume: () => pauseAll(false),
    async close() {
      cutAll();
      release();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface ProxyState {
  readonly options: FaultProxyOptions;
  readonly links: Set<Link>;
  readonly log: (Fault & { readonly request: ProxiedRequest })[];
  readonly held: (() => void)[];
  decide: Decide;
  count: number;
  paused: boolean;
}

interface Link {
  readonly sockets: readonly [Socket, Socket];
  cut: () => void;
}

function link(state: ProxyState, client: Socket): void {
  const server = connect(state.options.target.port, state.options.target.host);
  const one: Link = {
    sockets: [client, server],
    cut: () => {
      state.links.delete(one);
      for (const socket of one.sockets) socket.destroy();
    },
  };
  state.links.add(one);
  for (const socket of one.sockets) {
    socket.setNoDelay(true);
    socket.on('error', one.cut);
  }
  // Ended, not destroyed: what the other side has already sent still arrives.
  client.on('close', () => server.end());
  server.on('close', () => client.end());
  client.on('close', () => state.links.delete(one));
  if (state.options.protocol === 'kafka') framed(state, one);
  else {
    client.on('data', (chunk) => server.write(chunk));
    server.on('data', (chunk) => client.write(chunk));
  }
  if (state.paused) for (const socket of one.sockets) socket.pause();
}

function framed(state: ProxyState, one: Link): void {
  const [client, server] = one.sockets;
  const planned = new Map<number, Fault>();
  const toServer = lane(state, one, server);
  const toClient = lane(state, one, client);
  client.on(
    'data',
    frameSplitter((frame) => {
      const request: ProxiedRequest = { ...readRequest(frame), n: state.count++ };
      const fault = state.decide(request);
      if (fault) state.log.push({ ...fault, request });
      if (fault?.at === 'response') planned.set(request.correlationId, fault);
      toServer(frame, fault?.at === 'request' ? fault : undefined);
    }),
  );
  server.on(
    'data',
    frameSplitter((frame) => {
      const correlationId = responseCorrelationId(frame);
      const fault = planned.get(correlationId);
      planned.delete(correlationId);
      toClient(frame, fault);
    }),
  );
}

/** One direction of one connection: frames leave in the order in which they came. */
function lane(state: ProxyState, one: Link, to: Socket): (frame: Buffer, fault: Fault | undefined) => void {
  let tail: Promise<void> = Promise.resolve();
  return (frame, fault) => {
    if (fault?.act === 'drop') return;
    if (fault?.act === 'close') return one.cut();
    tail = tail.then(async () => {
      if (fault?.act === 'delay') await delay(fault.ms ?? 0);
      if (fault?.act === 'hold') await new Promise<void>((pass) => state.held.push(pass));
      if (to.writable) to.write(frame);
    });
  };
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' && address ? address.port : port);
    });
  });
}
