import { systemClock, type Clock, type GroupOptions, type Log, type WriterOptions } from '@headwater/core';
import { LearntLimits } from './batches.js';
import { Connection, type MemoryClientOptions } from './connection.js';
import { MemoryAdmin } from './memory-admin.js';
import { MemoryCluster, type Marker } from './memory-cluster.js';
import { MemoryGroup } from './memory-group.js';
import { MemoryProducer } from './memory-producer.js';
import { MemoryReader } from './memory-reader.js';
import { MemoryWriter } from './memory-writer.js';

export interface MemoryLogOptions {
  /** Time of the log: sessions, time-outs of transactions, timestamps. A `virtualClock` makes a test repeatable. Default: the system's. */
  readonly clock?: Clock;
  /**
   * How long after the answer to a commit or abort its marker is written, per partition: what Kafka does whenever it likes. Until then the
   * records stay unseen, and the group's offsets pending (topic `__consumer_offsets`). Default 0: with the answer.
   */
  readonly markerDelayMs?: (marker: Marker) => number;
  /** How many records of one partition a poll brings at most. Default 500. */
  readonly maxPollRecords?: () => number;
}

/** One client of a log in memory: a process with a fate of its own. */
export interface MemoryClient {
  readonly log: Log;
  /** The clock of that process: what waits on it goes on only while the process runs. */
  readonly clock: Clock;
  /** Stops the process as SIGSTOP does. Requests on their way arrive, answers wait, heartbeats cease. */
  pause(): void;
  resume(): void;
  /** Kills the process as SIGKILL does: no promise of its log and clock settles any more. Requests on their way arrive. */
  kill(): void;
}

/**
 * The Log port in memory, with Kafka's rules: transactions, fencing, control records that take offsets, last stable offsets, compaction with
 * gaps, groups with generations. It passes the same driver suite as Kafka. Nothing outlives the process.
 * `close()` ends all clients, and what waits for its time in the log itself.
 */
export interface MemoryLog extends Log {
  /** Another client of the same log. */
  client(options?: MemoryClientOptions): MemoryClient;
  /** Compacts a topic now, whatever its settings: the last record of each key stays, offsets keep their gaps. */
  compact(topic: string): void;
  /** Removes the records of a partition below an offset. */
  deleteRecords(topic: string, partition: number, before: number): void;
}

export function memoryLog(options: MemoryLogOptions = {}): MemoryLog {
  const clock = options.clock ?? systemClock;
  const cluster = new MemoryCluster({ clock, markerDelayMs: options.markerDelayMs ?? (() => 0) });
  const connections = new Set<Connection>();
  const maxPollRecords = options.maxPollRecords ?? (() => 500);

  const client = (of: MemoryClientOptions = {}): MemoryClient => {
    const connection = new Connection(clock, of);
    connections.add(connection);
    const limits = new LearntLimits();
    const log = {
      admin: new MemoryAdmin(cluster, connection),
      writer: (writer: WriterOptions) => new MemoryWriter(cluster, connection, limits, writer),
      producer: () => new MemoryProducer(cluster, connection),
      reader: () => new MemoryReader(cluster, connection, maxPollRecords),
      group: (group: GroupOptions) => new MemoryGroup(cluster, connection, group),
      async close() {
        await connection.close();
        connections.delete(connection);
      },
    };
    return {
      log,
      clock: connection.clock,
      pause: () => connection.pause(),
      resume: () => connection.resume(),
      kill: () => connection.kill(),
    };
  };

  const own = client().log;
  return {
    ...own,
    client,
    compact(topic) {
      for (const log of cluster.topics.get(topic).partitions) log.compact();
    },
    deleteRecords(topic, partition, before) {
      cluster.partition({ topic, partition }).deleteBefore(before);
    },
    async close() {
      await Promise.all([...connections].map((connection) => connection.close()));
      cluster.close();
    },
  };
}
