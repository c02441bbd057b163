import type { BufferPool } from '../log/buffer-pool.js';
import type { FetchedBatch, LogRecord, PartitionOffset } from '../log/log.js';
import type { LogInput } from '../log/record-run.js';
import { RecordRuns, type TakenRun, type TopicRuns } from '../log/record-runs.js';
import type { Clock } from '../clock/clock.js';
import { KeyBytes } from './key-bytes.js';
import { controlTopicOf, stateTopicOf, type DueTimer, type ProcessorDefinition } from './processor.js';
import type { Suspects, Unit } from './suspects.js';
import type { TaskState } from './task-state.js';
import { TOPOLOGY_ENTRY, encodeTopology, type Topology } from './topology.js';
import { UnitRunner } from './unit-runner.js';
import { WriteSet, headerBytes } from './write-set.js';

/** How long handlers that never wait may keep the process from its input and output. */
const SLICE_MS = 5;

/** How many records and timers, and how many bytes of what they write, may still join the batch that is being filled. Shared by the tasks of an instance. */
export interface Room {
  left: number;
  bytes: number;
}

/** A part of a task's work, ready for a transaction. */
export interface Sealed {
  readonly records: readonly LogInput[];
  readonly offsets: readonly PartitionOffset[];
  /** How many records and timers it holds, how many of them were parked, and the last of them. */
  readonly units: number;
  readonly parked: number;
  readonly last: Unit | undefined;
}

/**
 * One task: the handlers of a processor over one partition of all its inputs. Work goes through three places: the queue of fetched
 * records, the open write set that handlers fill, and the sealed one that is being committed; then it is state. So handling goes on
 * during a commit, on top of what is being committed; when that fails, the work begins again from the state.
 */
export class Task {
  readonly partition: number;
  readonly state: TaskState;
  readonly #topology: Buffer;
  readonly #definition: ProcessorDefinition;
  readonly #clock: Clock;
  readonly #controlTopic: string;
  readonly #runner: UnitRunner;
  /** What the state topic receives, in the format of the log: an object per entry took longer to make and to collect than its bytes to write. */
  readonly #runs: RecordRuns;
  readonly #stateRuns: TopicRuns;
  readonly #key = new KeyBytes();
  #taken: readonly TakenRun[] = [];
  readonly #next = new Map<string, number>();
  readonly #ends = new Map<string, number>();
  readonly #changed = new Set<string>();
  #queue: FetchedBatch[] = [];
  #at = 0;
  #queuedBytes = 0;
  #open: WriteSet;
  #sealed: WriteSet | undefined;
  #units = 0;
  #chargedBytes = 0;
  #waitingSince: number | undefined;
  #handled = 0;
  #parked = 0;
  #last: Unit | undefined;

  /** `topology`: what the state says of itself from the next transaction on. `buffers`: for what goes to the state topic. */
  constructor(
    definition: ProcessorDefinition,
    topology: Topology,
    partition: number,
    state: TaskState,
    clock: Clock,
    suspects: Suspects,
    buffers: BufferPool,
  ) {
    this.#runs = new RecordRuns(buffers);
    this.#definition = definition;
    this.#topology = encodeTopology(topology);
    this.partition = partition;
    this.state = state;
    this.#clock = clock;
    this.#controlTopic = controlTopicOf(definition.name);
    this.#stateRuns = this.#runs.openTopic(stateTopicOf(definition.name), partition + 1);
    this.#runner = new UnitRunner(definition, { partition, hasParked: state.parkedSequences > 0 }, clock, suspects);
    this.#open = new WriteSet(state);
  }

  /** Where an input continues. Called for each, before the first record. */
  startAt({ topic, next }: PartitionOffset): void {
    this.#next.set(topic, next);
  }

  enqueue(batch: FetchedBatch): void {
    this.#queue.push(batch);
    this.#queuedBytes += bytesOf(batch);
    this.#ends.set(batch.topic, batch.lastStableOffset);
  }

  /** Offsets between what was handled and the last stable offset that was seen, over all inputs. */
  get lag(): number {
    let lag = 0;
    for (const [topic, end] of this.#ends) lag += Math.max(0, end - this.#next.get(topic)!);
    return lag;
  }

  /** Fetched records that no handler has seen. */
  get queued(): number {
    return this.#queue.reduce((sum, { records }) => sum + records.length, -this.#at);
  }

  /** Of the batches that are not handled whole. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get hasWork(): boolean {
    return this.#queue.length > 0 || this.#dueTimers().length > 0;
  }

  /** When a timer will be due that is not yet; Infinity: none is set. */
  get nextTimerAt(): number {
    const at = this.state.nextTimerAt() ?? Infinity;
    return at > this.#clock.now() ? at : Infinity;
  }

  /** Records and timers handled since it began. */
  get handled(): number {
    return this.#handled + this.#units;
  }

  /** Handled since the last seal: records and timers. */
  get units(): number {
    return this.#units;
  }

  /** The position moved since the last seal, be it over offsets that hold no record. */
  get hasMoved(): boolean {
    return this.#changed.size > 0;
  }

  /** Everything that was handled is committed. */
  get isSettled(): boolean {
    return this.#units === 0 && this.#changed.size === 0 && this.#sealed === undefined;
  }

  /** Handles due timers, then queued records, until there is no more, no room, or `closing`. One call at a time. */
  async pump(room: Room, closing: () => boolean): Promise<void> {
    await this.#fireTimers(room, closing);
    let sliceEndsAt = this.#clock.elapsed() + SLICE_MS;
    for (let handled = 1; this.#queue.length > 0 && !closing(); handled++) {
      const batch = this.#queue[0]!;
      if (this.#at === batch.records.length) {
        this.#finish(batch);
        continue;
      }
      if (room.left <= 0) return;
      room.left--;
      const record = batch.records[this.#at]!;
      const handling = record.topic === this.#controlTopic ? this.#control(record) : this.#run({ record });
      if (handling !== undefined) await this.#waitFor(handling);
      this.#charge(room);
      this.#at++;
      this.#moveTo(record.topic, record.offset + 1);
      if (handled % 64 === 0 && this.#clock.elapsed() >= sliceEndsAt) {
        await this.#clock.breathe();
        sliceEndsAt = this.#clock.elapsed() + SLICE_MS;
      }
    }
  }

  /** Since when, by the clock's elapsed time, the task waits for its present record; undefined when it does not. */
  get waitingSince(): number | undefined {
    return this.#waitingSince;
  }

  async #waitFor(handling: Promise<void>): Promise<void> {
    this.#waitingSince = this.#clock.elapsed();
    try {
      await handling;
    } finally {
      this.#waitingSince = undefined;
    }
  }

  /** Makes the open work ready for a transaction; undefined when there is none. Called between pumps, after the former one was committed. */
  seal(): Sealed | undefined {
    if (this.#units === 0 && this.#changed.size === 0) return undefined;
    const stateTopic = stateTopicOf(this.#definition.name);
    // P8: a batch of timers alone moves no input. It is counted, so that a restore knows whether it has seen it.
    if (this.#changed.size === 0) this.#moveTo(stateTopic, this.#next.get(stateTopic)! + 1);
    this.#declare();
    const topics = [...this.#changed];
    for (const topic of topics) this.#open.set(`o:${topic}`, Buffer.from(String(this.#next.get(topic)!)));
    const sealed = this.#open;
    for (const [entry, value] of sealed.entries) {
      this.#key.take(entry);
      this.#stateRuns.put(this.partition, this.#key.bytes, this.#key.length, value);
    }
    this.#taken = this.#runs.take('everything', this.#clock.now());
    const result: Sealed = {
      records: [...sealed.sent, ...this.#taken],
      offsets: topics.map((topic) => ({ topic, partition: this.partition, next: this.#next.get(topic)! })),
      units: this.#units,
      parked: this.#parked,
      last: this.#last,
    };
    this.#sealed = sealed;
    this.#open = new WriteSet(sealed);
    this.#changed.clear();
    this.#handled += this.#units;
    this.#units = 0;
    this.#parked = 0;
    this.#chargedBytes = 0;
    return result;
  }

  /** P2: the state receives the sealed work only after the log has committed it. `stamp`: the state topic up to and with it, when known. */
  async committed(stamp?: number): Promise<void> {
    await this.state.apply(this.#sealed!.entries, stamp ?? this.state.stamp);
    this.#runs.release(this.#taken);
    this.#open.below = this.state;
    this.#sealed = undefined;
  }

  /** With another topology go the positions in it: an offset means nothing in another topic. */
  #declare(): void {
    if (this.#open.get(TOPOLOGY_ENTRY)?.equals(this.#topology) === true) return;
    this.#open.set(TOPOLOGY_ENTRY, this.#topology);
    for (const topic of this.#next.keys()) this.#changed.add(topic);
  }

  /** A batch that takes as many bytes as it may is full. */
  #charge(room: Room): void {
    const { bytes } = this.#open;
    room.bytes -= bytes - this.#chargedBytes;
    this.#chargedBytes = bytes;
    if (room.bytes <= 0) room.left = 0;
  }

  #finish(batch: FetchedBatch): void {
    this.#queue.shift();
    this.#queuedBytes -= bytesOf(batch);
    this.#at = 0;
    this.#moveTo(batch.topic, batch.nextOffset);
  }

  #moveTo(topic: string, next: number): void {
    if (next <= this.#next.get(topic)!) return;
    this.#next.set(topic, next);
    this.#changed.add(topic);
  }

  /** P4: due timers are handled before newer records. */
  async #fireTimers(room: Room, closing: () => boolean): Promise<void> {
    for (const timer of this.#dueTimers()) {
      if (closing() || room.left <= 0) return;
      if (!this.#isSet(timer)) continue;
      room.left--;
      await this.#run({ timer, partition: this.partition });
      this.#charge(room);
    }
  }

  #dueTimers(): DueTimer[] {
    const now = this.#clock.now();
    if ((this.state.nextTimerAt() ?? Infinity) > now) return [];
    return this.state.dueTimers(now).filter((timer) => this.#isSet(timer));
  }

  /** Not cancelled or moved by an earlier one of this moment, nor fired by the batch that is being committed. */
  #isSet(timer: DueTimer): boolean {
    return this.#open.get(timerEntry(timer))?.toString('utf8') === String(timer.atMs);
  }

  #run(unit: Unit): void | Promise<void> {
    this.#units++;
    this.#last = unit;
    const parked = this.#runner.run(unit, this.#open);
    if (typeof parked === 'boolean') return this.#count(parked);
    return parked.then((late) => this.#count(late));
  }

  #control(record: LogRecord): Promise<void> {
    this.#units++;
    this.#last = { record };
    return this.#runner.control(record, this.#open);
  }

  #count(parked: boolean): void {
    if (parked) this.#parked++;
  }
}

function bytesOf({ records }: FetchedBatch): number {
  let bytes = 0;
  for (const { key, value, headers } of records) {
    bytes += (key?.length ?? 0) + (value?.length ?? 0);
    if (headers.length > 0) bytes += headerBytes(headers);
  }
  return bytes;
}

const timerEntry = ({ id }: DueTimer): string => `t:${id}`;
