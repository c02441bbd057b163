import { errorCode, errorMessage, type BufferPool } from '@headwater/core';
import { ByteWriter } from './bytes.js';
import { KafkaError, UNSUPPORTED_VERSION, refused } from './kafka.errors.js';
import type { Connection, ConnectionBuilder } from './kafkajs-hook.js';
import type { Call } from './requests/call.js';
import { apiVersions, type SpokenVersions } from './requests/cluster.js';

/** One broker that is silent must not use up the patience for all. */
const GREETING_TIMEOUT_MS = 10_000;
/** Room for the header of a request, and for most bodies. */
const FRAME_BYTES = 4_000;

export interface Address {
  readonly host: string;
  readonly port: number;
}

/**
 * Connections of one owner, one per broker. A broker answers a connection strictly in order, so a long poll on a shared one would hold
 * back everybody else. Each connection asks its broker which versions it speaks (KIP-35): brokers of one cluster differ while it is upgraded.
 */
export class Lane {
  readonly #builder: ConnectionBuilder;
  readonly #timeoutMs: number;
  readonly #buffers: BufferPool;
  readonly #connections = new Map<string, Promise<Connection>>();
  /** Not connected, or not told by their brokers which versions these speak. */
  readonly #opening = new Set<Connection>();
  #answeredOver: Connection | undefined;
  #cuts = 0;
  #closed = false;

  constructor(builder: ConnectionBuilder, timeoutMs: number, buffers: BufferPool) {
    this.#builder = builder;
    this.#timeoutMs = timeoutMs;
    this.#buffers = buffers;
  }

  /** Names the connection over which the last answer came. Of use to who sends one request after the other. */
  get answeredOver(): object | undefined {
    return this.#answeredOver;
  }

  /** Rejects when the answer did not come: the request may have been done or not; with KAFKA_TOO_OLD or KAFKA_TOO_NEW it was not sent. */
  async send<T>(address: Address, call: Call<T>): Promise<T> {
    const key = `${address.host}:${address.port}`;
    const connection = await this.#connection(key, address).catch((cause: unknown) => {
      throw classified(cause, key);
    });
    assertSpoken(connection.versions!, call, key);
    try {
      if (connection.sasl && !connection.isAuthenticated()) await connection.authenticate();
      const answer = await this.#exchange(connection, key, call);
      this.#answeredOver = connection;
      return call.decode(answer);
    } catch (cause) {
      // After a time-out the late answer would hold up the line: the next request gets a new connection.
      this.#forget(key, connection);
      throw classified(cause, key);
    }
  }

  /** Ends every connection now; requests in flight reject. The next request connects again. */
  cut(): void {
    for (const [key, connecting] of this.#connections) {
      this.#connections.delete(key);
      connecting.then(end, () => undefined);
    }
    this.#giveUpOpening();
  }

  async close(): Promise<void> {
    this.#closed = true;
    const connecting = [...this.#connections.values()];
    this.#connections.clear();
    this.#giveUpOpening();
    await Promise.all(connecting.map((connection) => connection.then(end, () => undefined)));
  }

  #giveUpOpening(): void {
    this.#cuts++;
    for (const connection of this.#opening) {
      if (connection.isConnected()) end(connection);
      else connection.socket?.destroy(givenUp());
    }
  }

  /** Calls go out in the order in which this is called. */
  async #exchange<T>(connection: Connection, broker: string, call: Call<T>): Promise<Buffer> {
    const { apiKey, apiName, apiVersion } = call;
    const { socket } = connection;
    // One that is being ended counts as connected: nothing would ever settle what is sent on it.
    if (!connection.isConnected() || socket === undefined || socket.destroyed)
      throw new Error(`the connection to ${broker} has ended`);
    const correlationId = connection.nextCorrelationId();
    const buffer = this.#buffers.take(FRAME_BYTES + (call.capacity ?? 0));
    const writer = new ByteWriter(buffer).int32(0).int16(apiKey).int16(apiVersion).int32(correlationId);
    call.encode(writer.string(connection.clientId));
    const frame = writer.framed();
    let using = 2; // its way out, and its answer: one may come without the other
    const used = () => {
      if (--using === 0) this.#buffers.give(buffer);
    };
    const { payload } = await new Promise<{ readonly payload: Buffer }>((resolve, reject) =>
      connection.requestQueue.push({
        entry: { apiKey, apiName, apiVersion, correlationId, resolve, reject },
        expectResponse: true,
        requestTimeout: call.timeoutMs ?? this.#timeoutMs,
        sendRequest: () =>
          socket.write(frame, (error) => {
            if (!error) used();
          }),
      }),
    );
    used();
    return payload;
  }

  async #connection(key: string, address: Address): Promise<Connection> {
    if (this.#closed) throw closedError();
    const known = this.#connections.get(key);
    if (known !== undefined) {
      const connection = await known;
      if (connection.isConnected() && connection.socket?.destroyed === false) return connection;
      this.#forget(key, connection);
      return this.#connection(key, address);
    }
    const connecting = this.#connect(key, address);
    this.#connections.set(key, connecting);
    try {
      return await connecting;
    } catch (error) {
      if (this.#connections.get(key) === connecting) this.#connections.delete(key);
      throw error;
    }
  }

  async #connect(key: string, address: Address): Promise<Connection> {
    const cuts = this.#cuts;
    const { pool } = await this.#builder.build(address);
    if (cuts !== this.#cuts) throw givenUp();
    const connection = pool[0]!;
    connection.setSupportAuthenticationProtocol(true);
    this.#opening.add(connection);
    try {
      await connection.connect();
      if (cuts !== this.#cuts) throw givenUp();
      // The only request that needs no authentication, which needs its answer.
      const greeting = { ...apiVersions(), timeoutMs: Math.min(this.#timeoutMs, GREETING_TIMEOUT_MS) };
      const { error, versions } = greeting.decode(await this.#exchange(connection, key, greeting));
      if (error === UNSUPPORTED_VERSION) throw tooOld(key, greeting, 'does not speak it');
      if (error !== 0) throw refused('ApiVersions', error, { broker: key });
      connection.setVersions(versions);
    } catch (error) {
      end(connection);
      throw error;
    } finally {
      this.#opening.delete(connection);
    }
    return connection;
  }

  #forget(key: string, connection: Connection): void {
    const known = this.#connections.get(key);
    known?.then(
      (current) => {
        if (current === connection && this.#connections.get(key) === known) this.#connections.delete(key);
      },
      () => undefined,
    );
    end(connection);
  }
}

function givenUp(): Error {
  return new Error('Connection given up');
}

function end(connection: Connection): void {
  // kafkajs's disconnect waits for what is in flight; a long poll would hold it for its whole wait.
  connection.rejectRequests(givenUp());
  connection.disconnect().catch(() => undefined);
  connection.socket?.destroy();
}

/** No request is sent in another version than the one that is written and read here. */
function assertSpoken(versions: SpokenVersions, call: Call<unknown>, broker: string): void {
  const { apiKey, apiName, apiVersion } = call;
  const { minVersion, maxVersion } = versions[apiKey] ?? NONE;
  if (apiVersion > maxVersion)
    throw tooOld(broker, call, maxVersion < 0 ? 'does not know it' : `ends at v${maxVersion}`);
  if (apiVersion >= minVersion) return;
  throw new KafkaError(
    'KAFKA_TOO_NEW',
    `broker ${broker} speaks ${apiName} from v${minVersion} on, and v${apiVersion} is what this Headwater speaks. Upgrade Headwater.`,
    { facts: { broker, request: apiName, apiVersion, minVersion } },
  );
}

const NONE = { minVersion: 0, maxVersion: -1 };

function tooOld(broker: string, { apiName, apiVersion }: Call<unknown>, found: string): KafkaError {
  return new KafkaError(
    'KAFKA_TOO_OLD',
    `broker ${broker} is too old: ${apiName} v${apiVersion} is needed, and it ${found}. Upgrade it to Kafka 3.2 or later.`,
    { facts: { broker, request: apiName, apiVersion } },
  );
}

export function closedError(): KafkaError {
  return new KafkaError(
    'LOG_CLOSED',
    'this log, or the part of it that was used, is closed. Open a new one with kafkaLog().',
  );
}

/** What Node says of a certificate that it does not trust (node:tls, X509 certificate error codes). */
const UNTRUSTED: ReadonlySet<string> = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** A connection fault passes as it is, to be tried again; wrong credentials and certificates never heal by themselves. */
function classified(cause: unknown, broker: string): unknown {
  if (UNTRUSTED.has(errorCode(cause) ?? ''))
    return new KafkaError(
      'KAFKA_CERTIFICATE_UNTRUSTED',
      `the certificate of broker ${broker} is not trusted: ${errorMessage(cause)}. Name the certificate of its CA (ssl.caFile of a file, ssl.ca of kafkaLog), and brokers by the names that their certificates hold.`,
      { cause, facts: { broker } },
    );
  if ((cause as { name?: string } | null)?.name !== 'KafkaJSSASLAuthenticationError') return cause;
  return new KafkaError(
    'KAFKA_AUTHENTICATION_FAILED',
    `broker ${broker} refused the credentials: ${errorMessage(cause)}. Check sasl: its mechanism, and its user and password or its token.`,
    { cause, facts: { broker } },
  );
}
