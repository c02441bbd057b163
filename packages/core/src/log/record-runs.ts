import type { OutRecord } from './log.js';
import { OpenRun } from './open-run.js';
import { murmur2 } from './partitioner.js';
import type { RecordRun } from './record-run.js';
import { BufferPool } from './buffer-pool.js';
import { putVarint } from './varint.js';

/** A run that reaches this size is closed: below the broker's default limit of 1,048,588 with its batch header. */
const RUN_BYTES = 900_000;
const NO_KEY = Buffer.alloc(0);

export interface TakenRun extends RecordRun {
  /** What its bytes are a view of. */
  readonly buffer: Buffer;
}

/** Looks at records that were just added, before anything else is; it may add others meanwhile, to other topics. */
export interface RecordGuard {
  /** True: every record is looked at. False: only those above `maxRecordBytes`. Asked for anew by `TopicRuns.watch`. */
  readonly all: boolean;
  /** Of a record by itself, as it lies in a run. */
  readonly maxRecordBytes: number;
  /** The record has been taken out again; true: it stays out, false: it goes back to its place. What this throws comes to whoever added it. */
  keepsOut(record: OutRecord, bytes: number): boolean;
}

/**
 * Collects records as runs, without an object per record. Records belong to units (source transactions): `complete` ends one, and `take`
 * hands out either whole units only or everything. Order per partition is the order of adding.
 */
export class RecordRuns {
  readonly #buffers: BufferPool;
  readonly #topics = new Map<string, TopicRuns>();
  #runs: OpenRun[] = [];
  #unit = 0;
  #bytes = 0;
  #records = 0;
  #completeRecords = 0;

  /** `buffers`: where the memory of its runs comes from. */
  constructor(buffers = new BufferPool()) {
    this.#buffers = buffers;
  }

  /** Bytes and records collected and not taken. */
  get bytes(): number {
    return this.#bytes;
  }

  get records(): number {
    return this.#records;
  }

  /** Records of whole units. */
  get completeRecords(): number {
    return this.#completeRecords;
  }

  /** Where the records of a topic go; undefined until it was opened. */
  topic(topic: string): TopicRuns | undefined {
    return this.#topics.get(topic);
  }

  /** `maxRunBytes`: what the topic takes as one batch; a larger record gets a run of its own. */
  openTopic(topic: string, partitions: number, maxRunBytes = RUN_BYTES, guard?: RecordGuard): TopicRuns {
    const runs = new TopicRuns(this, topic, partitions, Math.min(RUN_BYTES, maxRunBytes), guard);
    this.#topics.set(topic, runs);
    return runs;
  }

  /** Everything added so far belongs to whole units. */
  complete(): void {
    this.#unit += 1;
    this.#completeRecords = this.#records;
  }

  /** Hands out the runs. `complete`: what belongs to the open unit stays. */
  take(what: 'complete' | 'everything', timestampMs: number): TakenRun[] {
    const runs = this.#runs;
    const taken: TakenRun[] = [];
    this.#runs = [];
    this.#bytes = 0;
    this.#records = 0;
    this.#completeRecords = 0;
    for (const run of runs) {
      const slots = this.#topics.get(run.topic)!;
      if (run.count === 0) {
        slots.leave(run);
        this.#buffers.give(run.bytes);
        continue;
      }
      const whole = what === 'everything' || run.unit !== this.#unit || run.cutCount === run.count;
      if (whole) slots.leave(run);
      else if (run.cutCount === 0) this.#keep(run);
      else {
        const tail = run.moveTail(run.cutBytes, run.cutCount);
        slots.replace(run, tail);
        tail.unit = this.#unit;
        this.#keep(tail);
      }
      if (!whole && run.cutCount === 0) continue;
      const { topic, partition, count, bytes: buffer } = run;
      taken.push({ topic, partition, count, bytes: buffer.subarray(0, run.length), buffer, timestampMs });
    }
    return taken;
  }

  /** Takes buffers back that the log has done with. */
  release(runs: readonly TakenRun[]): void {
    for (const { buffer } of runs) this.#buffers.give(buffer);
  }

  /** For `TopicRuns`. */
  open(topic: string, partition: number, capacity: number): OpenRun {
    const run = new OpenRun(this.#buffers, topic, partition, capacity);
    this.#runs.push(run);
    return run;
  }

  /** For `TopicRuns`: a record of the open unit is about to be added. */
  enter(run: OpenRun): void {
    if (run.unit === this.#unit) return;
    run.unit = this.#unit;
    run.cutBytes = run.length;
    run.cutCount = run.count;
  }

  /** For `TopicRuns`. */
  added(bytes: number): void {
    this.#bytes += bytes;
    this.#records += 1;
  }

  /** For `TopicRuns`: the record that was added last is taken out. */
  removed(bytes: number): void {
    this.#bytes -= bytes;
    this.#records -= 1;
  }

  /** For `TopicRuns`: the last record of a run that has become too long. */
  split(run: OpenRun, bytes: number): OpenRun {
    const tail = run.moveTail(run.length - bytes, run.count - 1);
    tail.unit = this.#unit;
    this.#runs.push(tail);
    return tail;
  }

  #keep(run: OpenRun): void {
    this.#runs.push(run);
    this.#bytes += run.length;
    this.#records += run.count;
  }
}

/** The records of one topic, by partition. */
export class TopicRuns {
  readonly #slots: { run: OpenRun | undefined; capacity: number }[];
  /** A record behind which its run is longer is looked at. */
  #lookAbove: number;

  constructor(
    private readonly runs: RecordRuns,
    readonly topic: string,
    readonly partitions: number,
    private readonly maxRunBytes: number,
    private readonly guard?: RecordGuard,
  ) {
    this.#lookAbove = maxRunBytes;
    this.watch();
    this.#slots = Array.from({ length: partitions }, () => ({ run: undefined, capacity: 0 }));
  }

  /** The guard looks at other records than before. */
  watch(): void {
    const { guard, maxRunBytes } = this;
    this.#lookAbove = guard === undefined ? maxRunBytes : guard.all ? -1 : Math.min(maxRunBytes, guard.maxRecordBytes);
  }

  /** The run for a record with this key (Kafka's murmur2 chooses the partition). Pair with `added`. */
  runFor(key: Uint8Array, from: number, to: number): OpenRun {
    return this.run(this.partitions === 1 ? 0 : (murmur2(key, from, to) & 0x7fffffff) % this.partitions);
  }

  run(partition: number): OpenRun {
    const slot = this.#slots[partition]!;
    const run = (slot.run ??= this.runs.open(this.topic, partition, slot.capacity));
    this.runs.enter(run);
    return run;
  }

  /** A record of so many bytes was added to the run. */
  added(run: OpenRun, bytes: number): void {
    this.runs.added(bytes);
    if (run.length <= this.#lookAbove) return;
    if (this.guard !== undefined && this.#isKeptOut(this.guard, run, bytes)) return;
    if (run.length <= this.maxRunBytes) return;
    const slot = this.#slots[run.partition]!;
    slot.capacity = this.maxRunBytes;
    slot.run = run.count === 1 ? undefined : this.runs.split(run, bytes);
  }

  #isKeptOut(guard: RecordGuard, run: OpenRun, bytes: number): boolean {
    if (!guard.all && bytes <= guard.maxRecordBytes) return false;
    const { length, count } = run;
    const record = run.takeLast(bytes);
    this.runs.removed(bytes);
    if (guard.keepsOut(record, bytes)) return true;
    // Its bytes are still there: nothing else is added to this topic meanwhile.
    run.length = length;
    run.count = count;
    this.runs.added(bytes);
    return false;
  }

  /** Adds a record without headers; its key is the first `keyBytes` of `key`. */
  put(partition: number, key: Uint8Array, keyBytes: number, value: Buffer | null): void {
    const run = this.run(partition);
    const at = begun(run, key, keyBytes, value, 1);
    run.bytes[at] = 0;
    this.added(run, run.end(at + 1));
  }

  /** Adds one record; its topic and timestamp are not looked at. */
  add({ partition, key, value, headers = [] }: OutRecord): void {
    const run = partition === undefined ? this.runFor(key ?? NO_KEY, 0, key?.length ?? 0) : this.run(partition);
    const size = headers.reduce((sum, [name, bytes]) => sum + 10 + 3 * name.length + (bytes?.length ?? 0), 10);
    let at = begun(run, key, key?.length ?? 0, value, size);
    at = putVarint(run.bytes, at, headers.length);
    for (const [name, bytes] of headers) {
      at = putVarint(run.bytes, at, Buffer.byteLength(name));
      at += run.bytes.write(name, at);
      at = putVarint(run.bytes, at, bytes?.length ?? -1);
      if (bytes !== null) at += bytes.copy(run.bytes, at);
    }
    this.added(run, run.end(at));
  }

  /** For `RecordRuns`: the run is handed out. */
  leave(run: OpenRun): void {
    const slot = this.#slots[run.partition]!;
    if (slot.run !== run) return;
    slot.run = undefined;
    slot.capacity = run.length;
  }

  /** For `RecordRuns`. */
  replace(run: OpenRun, tail: OpenRun): void {
    const slot = this.#slots[run.partition]!;
    if (slot.run === run) slot.run = tail;
  }
}

/** Begins a record and gives it its value. Returns where its headers begin, with room for `headerBytes`. */
function begun(
  run: OpenRun,
  key: Uint8Array | null,
  keyBytes: number,
  value: Buffer | null,
  headerBytes: number,
): number {
  const length = value?.length ?? 0;
  const at = run.begin(key, 0, keyBytes, length, length + headerBytes);
  return value === null ? run.tombstone() : run.value(at + value.copy(run.bytes, at));
}
