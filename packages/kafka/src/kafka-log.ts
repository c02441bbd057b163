import type { ConnectionOptions } from 'node:tls';
import type {
  GroupOptions,
  Log,
  LogGroup,
  LogProducer,
  LogReader,
  LogWriter,
  ProducerOptions,
  WriterOptions,
} from '@headwater/core';
import { KafkaAdmin } from './admin.js';
import type { Compression } from './codecs.js';
import { KafkaGroup } from './group.js';
import { KafkaError } from './kafka.errors.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { KafkaProducer } from './producer.js';
import { KafkaReader } from './reader.js';
import type { SaslOptions } from './sasl.js';
import { Wire } from './wire.js';
import { KafkaWriter } from './writer.js';

export interface KafkaOptions {
  /** Where to ask first, each as host:port. Two or three of a larger cluster are enough. */
  readonly brokers: readonly string[];
  /** Names this process in the brokers' logs and quotas. Default `headwater`. */
  readonly clientId?: string;
  /** `true`, or Node's TLS options for an own CA or a client certificate. Default off. */
  readonly ssl?: boolean | ConnectionOptions;
  /** Credentials, when the cluster wants them. Default none. */
  readonly sasl?: SaslOptions;
  /** How long one request may stay unanswered before it is tried elsewhere. Raise it for slow disks or far brokers. Default 4,000. */
  readonly requestTimeoutMs?: number;
  /**
   * How many bytes of record batches a reader fetches at once, in all and as they are packed, and the most that one poll hands out, unpacked; a batch is not cut. What is not handed
   * out waits, and at most one more fetch per broker. Lower it where many readers share little memory; 4 MiB read somewhat faster. At most 64 MiB. Default 2 MiB.
   */
  readonly maxPollBytes?: number;
  /**
   * How the writers compress their batches; what is read may have any of the four, whatever is chosen here. `lz4` and `snappy` cost least
   * time, `gzip` runs everywhere, `zstd` packs most. Choose one when the network or the disk is the limit. Default: none.
   */
  readonly compression?: Compression;
  /**
   * Where to connect for an address the brokers advertise: for tunnels and proxies, when that address cannot be reached from here. TLS still
   * checks the advertised name. Default: the address itself.
   */
  readonly connect?: (host: string, port: number) => { host: string; port: number };
}

/** With one more batch, far below what `Frames` takes. */
const MOST_POLL_BYTES = 64 << 20;

export const KAFKA_DEFAULTS = Object.freeze({ clientId: 'headwater', requestTimeoutMs: 4_000, maxPollBytes: 2 << 20 });

/**
 * The Log port on Kafka. Does no I/O by itself: connections are made on first use. `close()` ends everything made by it: groups leave,
 * open transactions are aborted, sockets are closed.
 */
export function kafkaLog(options: KafkaOptions): Log {
  const { brokers } = options;
  if (brokers.length === 0) {
    throw new KafkaError('LOG_OPTIONS_INVALID', 'no brokers given. Name at least one as host:port.');
  }
  const resolved = { ...KAFKA_DEFAULTS, ...options };
  if (!(resolved.maxPollBytes >= 1 && resolved.maxPollBytes <= MOST_POLL_BYTES)) {
    throw new KafkaError(
      'LOG_OPTIONS_INVALID',
      `maxPollBytes is ${resolved.maxPollBytes}. Give 1 to ${MOST_POLL_BYTES}; 2097152 is the default.`,
    );
  }
  const { kafka, connections } = kafkajsClient(resolved);
  const wire = new Wire(connections, resolved);
  const admin = new KafkaAdmin(wire, kafka);
  return {
    admin,
    writer: (of: WriterOptions): LogWriter => new KafkaWriter(wire, of),
    producer: (of?: ProducerOptions): LogProducer => new KafkaProducer(wire, of),
    reader: (): LogReader => new KafkaReader(wire, { maxBytes: resolved.maxPollBytes }),
    group: (of: GroupOptions): LogGroup => new KafkaGroup(wire, of),
    async close() {
      await wire.close();
      await admin.close();
    },
  };
}
