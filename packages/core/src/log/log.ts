import type { LogInput } from './record-run.js';

/**
 * The Log port: an append-only, partitioned log with transactions. Nothing here knows Kafka; `packages/kafka` implements it.
 * Offsets are numbers (exact up to 2^53). Keys, values and header values are bytes.
 */
export type Header = readonly [name: string, value: Buffer | null];

/** A record as read. Only records of committed transactions are ever delivered. */
export interface LogRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
  readonly key: Buffer | null;
  /** `null` is a tombstone. */
  readonly value: Buffer | null;
  readonly headers: readonly Header[];
}

/** A record to write. Without `partition`, Kafka's murmur2 of the key decides; a record without key and partition is refused. */
export interface OutRecord {
  readonly topic: string;
  readonly partition?: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers?: readonly Header[];
  readonly timestamp?: number;
}

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** `next` is the offset that will be read first after a restart. */
export interface PartitionOffset extends TopicPartition {
  readonly next: number;
}

/** Who a member is in its group. The generation goes up while the member stays: it is read when it is sent. */
export interface Membership {
  readonly groupId: string;
  readonly memberId: string;
  readonly generation: number;
  /** Of a static member. */
  readonly instanceId?: string;
  /**
   * Asked when the log refuses the generation `stale`. Resolves with true once the member is in a later one and still holds all it held:
   * the same may be asked for again. With false when it does not. Absent: there is no later one.
   */
  renewed?(stale: number): Promise<boolean>;
}

/** Offsets that become committed with a transaction, refused by the broker when the membership is no longer current (KIP-447). */
export interface GroupOffsets {
  readonly membership: Membership;
  readonly offsets: readonly PartitionOffset[];
}

/**
 * How a transaction ended. `committed` tells where each written partition stands after this transaction's last record (its marker not
 * counted). `aborted`: nothing of it will ever be seen; the writer is ready for the next one unless `fenced`.
 * `unknown`: it may be seen or not; call `fence()`, then learn the truth by reading what was committed.
 * `fenced` tells who was fenced: this writer (another one took its transactional id) or this group member (it lost its partitions).
 */
export type Outcome =
  | { readonly outcome: 'committed'; readonly appended: readonly PartitionOffset[] }
  | { readonly outcome: 'aborted'; readonly cause: unknown; readonly fenced?: 'writer' | 'member' }
  | { readonly outcome: 'unknown'; readonly cause: unknown };

/** A transaction being written. Appends are serialised by the transaction itself; one failure dooms it, and `commit` tells. */
export interface LogTransaction {
  /** Sends records now. Resolves when the log has them all, not yet visible. Rejects when one failed: then call `abort`. */
  append(records: readonly LogInput[]): Promise<void>;
  /** Never rejects: every failure is an outcome. After it the transaction is over. */
  commit(offsets?: GroupOffsets): Promise<Outcome>;
  abort(cause?: unknown): Promise<Outcome>;
}

/** One transactional writer. One transaction at a time; not for concurrent use. */
export interface LogWriter {
  readonly transactionalId: string;
  /**
   * Becomes the only writer of this transactional id: every older one is fenced and its open transaction is aborted or completed.
   * Must be called first, and after every outcome `unknown` or `aborted` with `fenced: 'writer'`.
   */
  fence(): Promise<void>;
  begin(): LogTransaction;
  /** `begin`, `append` and `commit` in one. Never rejects. */
  transact(records: readonly LogInput[], offsets?: GroupOffsets): Promise<Outcome>;
  close(): Promise<void>;
}

/** Idempotent sends, for what needs no transaction. For concurrent use. */
export interface LogProducer {
  /**
   * Resolves when the log has all of them, in the order given per partition, none doubled by a retry, with where each partition stands after
   * the last of them; concurrent calls are batched together and keep their call order per partition. Rejects when one is refused or stays unknown past the time
   * limit: the error's facts `refused` and `unknown` name the partitions; every other partition has its records. A crash may leave any
   * part of a send in the log.
   */
  send(records: readonly OutRecord[]): Promise<readonly PartitionOffset[]>;
  /** Waits for what was sent, within a limit. May be called twice. */
  close(): Promise<void>;
}

/** What one poll hands out of one partition. `records` may be empty while `nextOffset` moves on (aborted, control, compacted). */
export interface FetchedBatch extends TopicPartition {
  readonly from: number;
  readonly records: readonly LogRecord[];
  readonly nextOffset: number;
  readonly lastStableOffset: number;
  readonly highWatermark: number;
}

export interface PollOptions {
  readonly maxWaitMs?: number;
  readonly signal?: AbortSignal;
  /**
   * A poll ends with the batch by which it holds so much, unpacked; what else was fetched waits for the next poll. Small portions are handled while they are in the processor's cache; who
   * works on all of a poll at once takes more, up to what the log was set to. Default 256 KiB. A log in memory counts records instead.
   */
  readonly maxBytes?: number;
}

/** A committed-only reader at positions of its own. */
export interface LogReader {
  /** Reads this partition from `offset` on, paused or not before. */
  seek(topic: string, partition: number, offset: number): void;
  drop(topic: string, partition: number): void;
  /** Hands out nothing of this partition until `resume`, and keeps its place. What is fetched of it already is kept, within limits. Does nothing for one that is not read. */
  pause(topic: string, partition: number): void;
  resume(topic: string, partition: number): void;
  /**
   * Fetches from all leaders; resolves with what came, at most one batch of each partition, at latest after `maxWaitMs`. Moves the positions past what it returns.
   * Rejects with LOG_OFFSET_OUT_OF_RANGE when a position is no longer (or not yet) in the log, with LOG_CORRUPT on a CRC mismatch, and moves none then. What is of one partition has
   * facts that name it, and holds up no other: who polls on gets what comes of those, and the error again while it lasts. Retries a moved leader or a lost connection by itself. What is sought,
   * dropped, paused or resumed meanwhile counts for the next poll at latest.
   */
  poll(options?: PollOptions): Promise<readonly FetchedBatch[]>;
  close(): Promise<void>;
}

/** Partition n of all topics of a group, from when a member is given it until it gives it back. */
export interface Share {
  readonly partition: number;
  /** Of every topic of the group. */
  readonly partitions: readonly TopicPartition[];
  /** Aborted when the group asks for it back, and when it is lost. */
  readonly signal: AbortSignal;
  /** The work begins on it. Until then, and again when the work has settled, it goes by itself when it is asked back. */
  take(): void;
  /** Gives it back, after its signal. Its next owner begins behind this: everything of it is committed, and nothing more will be. */
  release(): void;
}

/** What a member holds, from generation to generation, until the group goes on without it or it stops. */
export interface Tenure {
  readonly membership: Membership;
  /** Held now, those included that are asked back and not released. */
  readonly shares: readonly Share[];
  /** Partition numbers that the member will be given when their owners have given them back. */
  readonly coming: readonly number[];
  /** Aborted when everything is lost, and when the member stops: nothing has to be released then. */
  readonly signal: AbortSignal;
  /** Resolves when another share is given, when less is coming, and when the signal aborts. Look first, then wait. */
  next(): Promise<void>;
}

/** What a member holds while that does not change. */
export interface Assignment {
  /** Over when the work on this assignment is. */
  readonly membership: Membership;
  readonly partitions: readonly TopicPartition[];
  /** Aborted when something of it is asked back or lost, when more is given, and when the member stops. */
  readonly signal: AbortSignal;
}

export interface GroupOptions {
  readonly groupId: string;
  /** Partition n of all topics always goes to one member: their partition counts must be equal. */
  readonly topics: readonly string[];
  /** Default 6,000. */
  readonly sessionTimeoutMs?: number;
  /** How long it may take to give back what is asked for; after that the member leaves and loses all. Default 15,000. */
  readonly rebalanceTimeoutMs?: number;
  /**
   * Makes the member static (KIP-345): it does not leave when it stops, and a process that comes back with the same id within the session
   * time-out gets its partitions without a rebalance; until then nobody works on them. Set it, with a longer session time-out, where
   * instances have stable names and are restarted one by one. A second live process with the same id ends the first: its `run` rejects
   * with LOG_INSTANCE_FENCED. Default: none, leaving hands the partitions over at once.
   */
  readonly instanceId?: string;
}

/**
 * Membership of a group. Its liveness does not depend on `work`: heartbeats have their own connection and timer. What moves to another member is
 * asked back, waited for, and given on; what stays is not disturbed (KIP-429).
 */
export interface LogGroup {
  /**
   * Joins, and calls `work` with all the member comes to hold. When `work` rejects, what is asked back is released, the error goes to `onError`,
   * and it is called again after a pause, with the same tenure while that lasts. Resolves after `stop()`.
   * A member that the group moved on without, stopped or cut off for longer than its session, or that did not give back in time, has its
   * signals aborted, tells `onError` (LOG_MEMBER_LOST, with what stalled) and joins anew once `work` has settled. Rejects when joining again cannot
   * help: topics that do not fit (LOG_TOPIC_MISSING, LOG_NOT_COPARTITIONED), a second process with its instance id (LOG_INSTANCE_FENCED),
   * members of another kind in the group (LOG_GROUP_FOREIGN).
   */
  hold(work: (tenure: Tenure) => Promise<void>, onError?: (error: unknown) => void): Promise<void>;
  /**
   * As `hold`, for work that begins anew whenever something is given or asked back: `work` is called for every assignment, the next one only after
   * the promise of the previous one has settled.
   */
  run(work: (assignment: Assignment) => Promise<void>, onError?: (error: unknown) => void): Promise<void>;
  /** Aborts what the member holds, waits for `work` to settle, leaves the group. May be called twice. */
  stop(): Promise<void>;
}

export interface TopicSpec {
  readonly topic: string;
  readonly partitions: number;
  readonly cleanupPolicy: 'compact' | 'delete';
  readonly replicationFactor?: number;
  /** Further settings, for example `retention.ms`. */
  readonly config?: Readonly<Record<string, string>>;
}

export interface LogAdmin {
  /**
   * Creates the missing topics and checks the existing ones. Rejects with LOG_TOPIC_MISMATCH listing every difference (wanted, found) in
   * `cleanup.policy`, partition count and the given settings.
   */
  ensureTopics(specs: readonly TopicSpec[]): Promise<void>;
  /**
   * What the log's servers can. Rejects when one lacks what its driver cannot do without. `endsByEpoch`: each end of a transaction gives its writer a new epoch, so that
   * a lost answer to it is asked for again; else the end is `unknown`.
   */
  abilities(): Promise<{ readonly endsByEpoch: boolean }>;
  /** Number of partitions per topic; a topic that does not exist is absent. */
  partitionCounts(topics: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** Per partition: where the log starts, its last stable offset and its high watermark. */
  offsets(topic: string): Promise<readonly (TopicPartition & { start: number; lastStable: number; high: number })[]>;
  /** Offsets of a group, waiting for pending transactional commits to end (`require_stable`). -1: none committed. */
  committedOffsets(groupId: string, partitions: readonly TopicPartition[]): Promise<readonly PartitionOffset[]>;
  deleteTopics(topics: readonly string[]): Promise<void>;
  /** Per partition the first offset whose record is at or after `timestampMs`; the last stable offset where there is none. */
  offsetsForTime(topic: string, timestampMs: number): Promise<readonly PartitionOffset[]>;
  /**
   * Lag of a group against the last stable offset: 0 for an idle group beside a foreign open transaction. -1 committed: counted from the log's start.
   * Without `topics`: of all partitions of every topic that exists, may be described, and of which the group has committed something, by name;
   * empty when there is none, also for a group that nobody knows.
   */
  lag(
    groupId: string,
    topics?: readonly string[],
  ): Promise<readonly (TopicPartition & { committed: number; lastStable: number; lag: number })[]>;
  /** A topic's `cleanup.policy`. Undefined: it may not be asked for, or there is no such topic. */
  cleanupPolicy(topic: string): Promise<string | undefined>;
  /** What differs between the specs and the cluster; empty when nothing does. Missing topics are differences too. Only reads. */
  diffTopics(specs: readonly TopicSpec[]): Promise<readonly TopicDifference[]>;
  /**
   * Creates what is missing and alters settings; refuses (LOG_TOPIC_MISMATCH) what cannot be changed without losing order: fewer or more
   * partitions, replication factor. A refusal comes before any change. Resolves with the differences that were there, once they are gone.
   */
  applyTopics(specs: readonly TopicSpec[]): Promise<readonly TopicDifference[]>;
  /** An id that changes when a topic is deleted and made again. Absent: no such topic. */
  topicIds(topics: readonly string[]): Promise<ReadonlyMap<string, string>>;
  /** Transactions open on a topic's partitions longer than `olderThanMs`, by partition and first offset. Rejects when the topic or a coordinator is missing. */
  openTransactions(topic: string, olderThanMs: number): Promise<readonly OpenTransaction[]>;
  /**
   * Ends an open transaction by aborting it: its writer, where one is known, is fenced, and all its partitions are freed; a transaction that
   * no coordinator knows is ended on its partition. Nothing happens when it is over already. Resolves when its partition is free of it.
   */
  abortOpenTransaction(open: OpenTransaction): Promise<void>;
}

/** One setting that is not as wanted. `found` is undefined when there is nothing: a missing topic, an unknown setting. */
export interface TopicDifference {
  readonly topic: string;
  readonly setting: string;
  readonly wanted: string;
  readonly found: string | undefined;
  readonly remedy: string;
}

/** A transaction that holds back the last stable offset of one partition. */
export interface OpenTransaction extends TopicPartition {
  readonly producerId: bigint;
  readonly epoch: number;
  /** Absent when no coordinator knows of the transaction any more: it hangs, and nothing but `abortOpenTransaction` ends it. */
  readonly transactionalId?: string;
  /** Milliseconds since 1970, as its coordinator tells; absent without one. */
  readonly startedAtMs?: number;
  readonly firstOffset: number;
  readonly coordinatorEpoch: number;
}

export interface WriterOptions {
  /** Stable per slot of work when it can be; a successor with the same id aborts the predecessor's transaction at once. */
  readonly transactionalId: string;
  /** The broker aborts a transaction open longer than this. Default 8,000. */
  readonly transactionTimeoutMs?: number;
}

export interface ProducerOptions {
  /** How long a record may wait for others to share its batch. Raise it for fewer, larger batches. Default 0: only what load brings. */
  readonly lingerMs?: number;
  /** How long a send is tried before its records are told as refused or unknown. Default 30,000. */
  readonly timeoutMs?: number;
}

/** A connection to a log. Everything made by it is closed with it. */
export interface Log {
  readonly admin: LogAdmin;
  writer(options: WriterOptions): LogWriter;
  producer(options?: ProducerOptions): LogProducer;
  reader(): LogReader;
  group(options: GroupOptions): LogGroup;
  close(): Promise<void>;
}
