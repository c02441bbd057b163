import {
  partitionOf,
  type Batch,
  type Clock,
  type LogInput,
  type Membership,
  type OutRecord,
  type PartitionOffset,
  type TopicPartition,
} from '@headwater/core';
import { batchesOf, unpacked, type LearntLimits } from './batches.js';
import { Bell } from './bell.js';
import { GroupOffsets } from './group-offsets.js';
import { GroupState, type JoinRequest } from './group-state.js';
import type { PartitionLog } from './partition-log.js';
import { batchTooLarge, keyMissing, memberFenced, notCopartitioned, partitionMissing, tooLarge } from './refusals.js';
import { Topics } from './topics.js';
import { TransactionCoordinator, type Ending, type MemoryTransaction } from './transaction-coordinator.js';

/** A marker that is about to be written. The offsets of a group have markers of their own, on `OFFSETS_TOPIC`. */
export interface Marker extends TopicPartition {
  readonly transactionalId: string;
  readonly how: Ending;
}

export const OFFSETS_TOPIC = '__consumer_offsets';

export interface ClusterOptions {
  readonly clock: Clock;
  /** How long after the answer to a commit a marker is written. */
  readonly markerDelayMs: (marker: Marker) => number;
}

interface Written {
  readonly logs: Set<PartitionLog>;
  readonly groups: Set<GroupOffsets>;
  readonly over: AbortController;
}

/** A broker in memory: what one request does, at one instant. Everything that waits is its clients'. */
export class MemoryCluster {
  readonly topics = new Topics();
  /** Rings when records, markers or transactions have changed. */
  readonly logChanged = new Bell();
  readonly groupsChanged = new Bell();
  readonly #clock: Clock;
  readonly #markerDelayMs: (marker: Marker) => number;
  readonly #transactions = new TransactionCoordinator();
  readonly #written = new Map<MemoryTransaction, Written>();
  readonly #groups = new Map<string, GroupState>();
  readonly #offsets = new Map<string, GroupOffsets>();
  readonly #later = new Set<AbortController>();

  constructor({ clock, markerDelayMs }: ClusterOptions) {
    this.#clock = clock;
    this.#markerDelayMs = markerDelayMs;
  }

  /** Ends what still waits for its time. */
  close(): void {
    for (const off of this.#later) off.abort();
  }

  partition({ topic, partition }: TopicPartition): PartitionLog {
    const found = this.topics.get(topic).partitions[partition];
    if (found === undefined) throw partitionMissing(topic, partition);
    return found;
  }

  /** The epoch under which the caller may write; undefined while a transaction before it is not completed: ask again. */
  fence(transactionalId: string): number | undefined {
    const { epoch, aborted } = this.#transactions.fence(transactionalId);
    if (aborted !== undefined) this.#complete(aborted, 'abort');
    return this.#transactions.isCompleting(transactionalId) ? undefined : epoch;
  }

  /**
   * Appends to the id's transaction, all or nothing, in batches that are refused as Kafka's are. Undefined: ask again, transactions before
   * it have markers to come.
   */
  append(
    writer: WriterIdentity,
    inputs: readonly LogInput[],
    limits: LearntLimits,
  ): readonly PartitionOffset[] | undefined {
    const placed = this.#place(batchesOf(inputs, (record) => this.#partitionOf(record), limits));
    const transaction = this.#enter(writer);
    if (transaction === undefined) return undefined;
    for (const log of placed.keys()) this.#written.get(transaction)!.logs.add(log);
    return this.#write(placed, transaction.number);
  }

  /** Appends outside of any transaction. What does not fit into one batch goes in several, so each record is judged by itself. */
  send(records: readonly OutRecord[]): readonly PartitionOffset[] {
    const alone = records.map((record) => {
      const { topic } = record;
      return { topic, partition: this.#partitionOf(record), records: [record], sizeAtMost: 0 };
    });
    return this.#write(this.#place(alone), undefined);
  }

  /** Adds offsets to the id's transaction. Throws LOG_MEMBER_FENCED when the membership is no longer current. */
  addOffsets(writer: WriterIdentity, membership: Membership, offsets: readonly PartitionOffset[]): true | undefined {
    if (!this.group(membership.groupId).accepts(membership)) throw memberFenced(membership.groupId);
    const transaction = this.#enter(writer);
    if (transaction === undefined) return undefined;
    const ofGroup = this.offsetsOf(membership.groupId);
    ofGroup.prepare(transaction.number, offsets);
    this.#written.get(transaction)!.groups.add(ofGroup);
    return true;
  }

  end({ transactionalId, epoch }: WriterIdentity, how: Ending): void {
    const transaction = this.#transactions.end(transactionalId, epoch);
    if (transaction !== undefined) this.#complete(transaction, how);
  }

  /** The transactions that have records on a partition and no marker there. */
  openOn(log: PartitionLog): { readonly transaction: MemoryTransaction; readonly firstOffset: number }[] {
    return [...log.open].map(([number, firstOffset]) => ({
      transaction: this.#transactions.byNumber(number)!,
      firstOffset,
    }));
  }

  /** Fences the writer of an open transaction; without its id the transaction is ended on the one partition alone. */
  abortOpen(of: TopicPartition, number: number, transactionalId: string | undefined): void {
    const open = this.#transactions.byNumber(number);
    if (transactionalId === undefined) this.partition(of).mark(number, 'abort');
    else if (open !== undefined && this.#transactions.expire(open)) this.#complete(open, 'abort');
    this.logChanged.ring();
  }

  group(groupId: string): GroupState {
    let group = this.#groups.get(groupId);
    if (group === undefined) this.#groups.set(groupId, (group = new GroupState(groupId)));
    return group;
  }

  offsetsOf(groupId: string): GroupOffsets {
    let offsets = this.#offsets.get(groupId);
    if (offsets === undefined) this.#offsets.set(groupId, (offsets = new GroupOffsets()));
    return offsets;
  }

  deleteTopic(topic: string): void {
    if (!this.topics.delete(topic)) return;
    for (const offsets of this.#offsets.values()) offsets.forget(topic);
    this.logChanged.ring();
  }

  join(groupId: string, request: JoinRequest, memberId?: string): string | undefined {
    this.#coPartitioned(groupId, request.topics);
    const group = this.group(groupId);
    const wasPreparing = group.preparing;
    const id = group.join(request, memberId);
    if (group.preparing && !wasPreparing) this.#awaitMembers(group);
    this.settle(group);
    return id;
  }

  leave(groupId: string, memberId: string): void {
    const group = this.group(groupId);
    const wasPreparing = group.preparing;
    if (!group.remove(memberId)) return;
    if (group.preparing && !wasPreparing) this.#awaitMembers(group);
    this.settle(group);
  }

  /** Throws the member out when it is silent for longer than its session. Returns how to say that it speaks again. */
  silent(groupId: string, memberId: string, sessionTimeoutMs: number): () => void {
    return this.#after(sessionTimeoutMs, () => this.leave(groupId, memberId));
  }

  settle(group: GroupState): void {
    group.settle((topics) => this.#coPartitioned(group.groupId, topics));
    this.groupsChanged.ring();
  }

  /** Whoever has not joined the new generation in time is not in it. */
  #awaitMembers(group: GroupState): void {
    const { generation } = group;
    this.#after(group.patienceMs, () => {
      if (!group.preparing || group.generation !== generation) return;
      for (const memberId of group.waitsFor()) group.remove(memberId);
      this.settle(group);
    });
  }

  #coPartitioned(groupId: string, topics: readonly string[]): number {
    const counts = topics.map((topic) => [topic, this.topics.get(topic).partitions.length] as const);
    const count = counts[0]?.[1] ?? 0;
    if (counts.some(([, of]) => of !== count)) throw notCopartitioned(groupId, Object.fromEntries(counts));
    return count;
  }

  #enter({ transactionalId, epoch, timeoutMs }: WriterIdentity): MemoryTransaction | undefined {
    const entered = this.#transactions.enter(transactionalId, epoch, this.#clock.now());
    if (entered === undefined) return undefined;
    const { transaction, begun } = entered;
    if (begun) {
      const over = new AbortController();
      this.#written.set(transaction, { logs: new Set(), groups: new Set(), over });
      const stop = this.#after(timeoutMs, () => {
        if (this.#transactions.expire(transaction)) this.#complete(transaction, 'abort');
      });
      over.signal.addEventListener('abort', stop, { once: true });
    }
    return transaction;
  }

  /** Writes the markers of a decided transaction, each at its time. */
  #complete(transaction: MemoryTransaction, how: Ending): void {
    const { logs, groups, over } = this.#written.get(transaction)!;
    this.#written.delete(transaction);
    over.abort('ended');
    let left = logs.size + groups.size;
    const { transactionalId, number } = transaction;
    const mark = (marker: Marker, write: () => void) => {
      const written = () => {
        write();
        if (--left === 0) this.#transactions.completed(transaction);
        this.logChanged.ring();
      };
      const delayMs = this.#markerDelayMs(marker);
      if (delayMs > 0) this.#after(delayMs, written);
      else written();
    };
    for (const log of logs)
      mark({ topic: log.topic, partition: log.partition, transactionalId, how }, () => log.mark(number, how));
    for (const group of groups)
      mark({ topic: OFFSETS_TOPIC, partition: 0, transactionalId, how }, () => group.mark(number, how));
  }

  #partitionOf({ topic, partition, key }: OutRecord): number {
    const found = this.topics.get(topic);
    if (partition === undefined && key === null) throw partitionMissing(topic);
    return partition ?? partitionOf(key!, found.partitions.length);
  }

  /** Judges every batch before the first is written. */
  #place(batches: readonly Batch[]): Map<PartitionLog, OutRecord[]> {
    const placed = new Map<PartitionLog, OutRecord[]>();
    const now = this.#clock.now();
    for (const batch of batches) {
      const { topic, partition } = batch;
      const log = this.partition(batch);
      const { settings } = this.topics.get(topic);
      const limit = Number(settings.get('max.message.bytes'));
      const { records, bytes } = unpacked(batch, now);
      if (bytes > limit && records.length > 1) throw batchTooLarge(topic, partition, records.length, bytes, limit);
      if (bytes > limit) throw tooLarge(topic, partition, records[0]!.key, bytes, limit);
      if (settings.get('cleanup.policy')!.includes('compact') && records.some(({ key }) => key === null))
        throw keyMissing(topic, partition);
      const ofLog = placed.get(log);
      if (ofLog === undefined) placed.set(log, [...records]);
      else for (const record of records) ofLog.push(record);
    }
    return placed;
  }

  #write(placed: ReadonlyMap<PartitionLog, readonly OutRecord[]>, transaction: number | undefined): PartitionOffset[] {
    const now = this.#clock.now();
    const appended = [...placed].map(([log, records]) => {
      const copies = records.map(({ key, value, headers = [], timestamp = now }) => ({
        key: copied(key),
        value: copied(value),
        headers: headers.map(([name, bytes]) => [name, copied(bytes)] as const),
        timestamp,
      }));
      return { topic: log.topic, partition: log.partition, next: log.append(copies, transaction) };
    });
    this.logChanged.ring();
    return appended;
  }

  /** Does something later, unless it is called off or the cluster is closed. */
  #after(ms: number, act: () => void): () => void {
    const off = new AbortController();
    this.#later.add(off);
    void this.#clock.wait(ms, off.signal).then(() => {
      this.#later.delete(off);
      if (!off.signal.aborted) act();
    });
    return () => off.abort('called off');
  }
}

export interface WriterIdentity {
  readonly transactionalId: string;
  readonly epoch: number;
  readonly timeoutMs: number;
}

const copied = (bytes: Buffer | null): Buffer | null => (bytes === null ? null : Buffer.from(bytes));
