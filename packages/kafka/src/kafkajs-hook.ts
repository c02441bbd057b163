import { createRequire } from 'node:module';
import net from 'node:net';
import tls from 'node:tls';
import kafkajs from 'kafkajs';
import type { ISocketFactory, Kafka } from 'kafkajs';
import { KafkaError } from './kafka.errors.js';
import type { SpokenVersions } from './requests/cluster.js';
import { kafkajsSasl, type SaslOptions } from './sasl.js';

const SUPPORTED = '2.2.4';

/**
 * What is used of kafkajs's connection: correlation, time-outs, the framing of answers, TLS, SASL and its renewal. Requests are framed
 * by `Lane`: kafkajs would copy each one twice, into zeroed memory.
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
  const kafka = new kafkajs.Kafka({
    brokers: [...options.brokers],
    clientId: options.clientId,
    ssl: options.ssl,
    sasl: options.sasl && kafkajsSasl(options.sasl),
    // A floor: kafkajs takes the larger of this and the call's own time-out.
    requestTimeout: 1_000,
    connectionTimeout: 3_000,
    authenticationTimeout: 10_000,
    socketFactory: quickSockets(options.connect),
    logLevel: kafkajs.logLevel.NOTHING,
    retry: { retries: 5, initialRetryTime: 50, maxRetryTime: 1_000 },
  });
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
  return { kafka, connections };
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

/** kafkajs leaves Nagle's algorithm on, which holds back the small requests of a transaction. */
function quickSockets(reroute: ClientOptions['connect']): ISocketFactory {
  return ({ host, port, ssl, onConnect }) => {
    const address = reroute?.(host, port) ?? { host, port };
    const socket = ssl
      ? tls.connect(
          { ...address, ...(net.isIP(host) ? {} : { servername: host }), ...(ssl as tls.ConnectionOptions) },
          onConnect,
        )
      : net.connect(address, onConnect);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 60_000);
    return socket;
  };
}
