import { createRequire } from 'node:module';
import net from 'node:net';
import tls from 'node:tls';
import kafkajs from 'kafkajs';
import type { ISocketFactory, Kafka } from 'kafkajs';
import { Frames } from './frames.js';
import { KafkaError } from './kafka.errors.js';
import type { SpokenVersions } from './requests/cluster.js';
import { kafkajsSasl, type SaslOptions } from './sasl.js';

const SUPPORTED = '2.2.4';

/**
 * What is used of kafkajs's connection: correlation, time-outs, TLS, SASL and its renewal. Requests are framed by `Lane`: kafkajs would copy each one twice,
 * into zeroed memory. Answers are framed by `Frames`: it would keep all pieces of one, and copy them when the last has come.
 */
export interface Connection {
  readonly clientId: string;
  /** Credentials, when it has any. */
  readonly sasl?: unknown;
  readonly requestQueue: RequestQueue;
  readonly socket?: net.Socket;
  connect(): Promise<unknown>;
  disconnect(): Promise<unknown>;
  isConnected(): boolean;
  isAuthenticated(): boolean;
  authenticate(): Promise<void>;
  nextCorrelationId(): number;
  rejectRequests(error: Error): void;
  /** As `setVersions` was told. */
  readonly versions: SpokenVersions | null;
  setVersions(versions: SpokenVersions): void;
  setSupportAuthenticationProtocol(supported: boolean): void;
}

/** What kafkajs does with what arrives. */
interface Receiving extends Connection {
  processData(chunk: Buffer): void;
}

interface RequestQueue {
  /** Sends now, and settles the entry with the answer, a time-out or the end of the connection. */
  push(request: {
    readonly entry: {
      readonly apiKey: number;
      readonly apiName: string;
      readonly apiVersion: number;
      readonly correlationId: number;
      readonly resolve: (answer: { readonly payload: Buffer }) => void;
      readonly reject: (error: unknown) => void;
    };
    readonly expectResponse: true;
    readonly requestTimeout: number;
    readonly sendRequest: () => void;
  }): void;
  fulfillRequest(answer: { readonly correlationId: number; readonly payload: Buffer; readonly size: number }): void;
}

/** Makes connections with the user's TLS and SASL settings. Connecting is up to the caller. */
export interface ConnectionBuilder {
  build(address: { host: string; port: number }): Promise<{ readonly pool: readonly Connection[] }>;
}

export interface ClientOptions {
  readonly brokers: readonly string[];
  readonly clientId: string;
  readonly ssl?: boolean | tls.ConnectionOptions;
  readonly sasl?: SaslOptions;
  readonly connect?: (host: string, port: number) => { host: string; port: number };
}

/**
 * kafkajs as a wire layer. Its producer and consumer are never used: when answers are lost they lose and double records, and they deliver
 * aborted ones. The way in is private, so the version is pinned and both are checked here.
 */
export function kafkajsClient(options: ClientOptions): {
  readonly kafka: Kafka;
  readonly connections: ConnectionBuilder;
} {
  assertVersion();
  const client = (socketFactory: ISocketFactory) =>
    new kafkajs.Kafka({
      brokers: [...options.brokers],
      clientId: options.clientId,
      ssl: options.ssl,
      sasl: options.sasl && kafkajsSasl(options.sasl),
      // A floor: kafkajs takes the larger of this and the call's own time-out.
      requestTimeout: 1_000,
      connectionTimeout: 3_000,
      authenticationTimeout: 10_000,
      socketFactory,
      logLevel: kafkajs.logLevel.NOTHING,
      retry: { retries: 5, initialRetryTime: 50, maxRetryTime: 1_000 },
    });
  return {
    kafka: client(quickSockets(options.connect, (address) => net.connect(address))),
    connections: connectionsOf(client(quickSockets(options.connect, connectReading))),
  };
}

function connectionsOf(kafka: Kafka): ConnectionBuilder {
  const hook = Object.getOwnPropertySymbols(kafka).find(
    ({ description }) => description === 'private:Kafka:createCluster',
  );
  const createCluster =
    hook &&
    (kafka as unknown as Record<symbol, (options: object) => { connectionPoolBuilder?: ConnectionBuilder }>)[hook];
  const connections = createCluster?.({ allowAutoTopicCreation: false }).connectionPoolBuilder;
  if (typeof connections?.build !== 'function') {
    throw unsupported(
      'the private hook "private:Kafka:createCluster" is missing; another package may have patched kafkajs',
    );
  }
  return {
    build: async (address) => {
      const built = await connections.build(address);
      for (const connection of built.pool) frameAnswers(connection as Receiving);
      return built;
    },
  };
}

/** Has the answers of `connection` cut by `Frames`, and handed on as kafkajs would: those of SASL are frames too (SaslAuthenticate, as `Lane` asks for it). */
function frameAnswers(connection: Receiving): void {
  if (typeof connection.processData !== 'function')
    throw unsupported('its connection has no processData; another package may have patched kafkajs');
  const frames = new Frames((frame) =>
    connection.requestQueue.fulfillRequest({
      correlationId: frame.readInt32BE(4),
      payload: frame.subarray(8),
      size: frame.length - 4,
    }),
  );
  connection.processData = (chunk) => {
    try {
      frames.push(chunk);
    } catch (error) {
      connection.socket?.destroy(error as Error);
    }
  };
}

function assertVersion(): void {
  const { version } = createRequire(import.meta.url)('kafkajs/package.json') as { version: string };
  if (version !== SUPPORTED) throw unsupported(`found version ${version}`);
}

function unsupported(found: string): KafkaError {
  return new KafkaError(
    'KAFKA_CLIENT_UNSUPPORTED',
    `kafkajs ${SUPPORTED} is needed: ${found}. Install kafkajs@${SUPPORTED} exactly.`,
    {
      facts: { wanted: SUPPORTED, found },
    },
  );
}

/** All connections read into it, one after the other: it stays in the processor's cache, where kafkajs's sockets take fresh memory for each piece. */
const arrivals = Buffer.allocUnsafeSlow(1 << 16);

/** A connection whose listeners get views of `arrivals`, and copy what they keep before they return. */
function connectReading(address: { host: string; port: number }): net.Socket {
  const socket: net.Socket = net.connect({
    ...address,
    onread: {
      buffer: arrivals,
      callback: (length, bytes) => socket.emit('data', bytes.subarray(0, length)),
    },
  });
  return socket;
}

/** kafkajs leaves Nagle's algorithm on, which holds back the small requests of a transaction. */
function quickSockets(
  reroute: ClientOptions['connect'],
  connect: (address: { host: string; port: number }) => net.Socket,
): ISocketFactory {
  return ({ host, port, ssl, onConnect }) => {
    const address = reroute?.(host, port) ?? { host, port };
    const socket = ssl
      ? tls.connect(
          { ...address, ...(net.isIP(host) ? {} : { servername: host }), ...(ssl as tls.ConnectionOptions) },
          onConnect,
        )
      : connect(address).on('connect', onConnect);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 60_000);
    return socket;
  };
}
