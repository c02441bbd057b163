import {
  appendParked,
  ContractError,
  decodeMessage,
  encodeParkedUnit,
  errorCode,
  errorMessage,
  HeadwaterError,
  headerText,
  parkedTopicOf,
  partitionOf,
  stateTopicOf,
  textHeaders,
} from '@headwater/core';
import type { Header, LogRecord, OutRecord, ParkedUnit, RecordGuard } from '@headwater/core';
import type { CapturedTable, ResolvedOptions } from '../capture.options.js';
import { CaptureError } from '../cdc.errors.js';
import { roomOf, type TopicLimits } from '../topic-limits.js';
import { placeOf } from '../place.js';
import { ParkedEntries, sequenceOf } from './parked-entries.js';
import { parkedNameOf, parkingTopics } from './parked-topics.js';

/** Of a record, around key, value and headers, at most. */
const RECORD_BYTES = 64;

/** Marks a value that is the texts of a row by column: its type could not print it. */
export const RAW_VALUE: Header = ['hw_parked_value', Buffer.from('text')];

/** What writes records for parking: the publisher. */
export interface ParkingSink {
  add(record: OutRecord): void;
  /** Which records of the topic are looked at has changed. */
  watch(topic: string): void;
}

/**
 * Keeps out of its topic what that does not take, what breaks its contract or cannot be encoded, and all that follows on its key; with `park` all of it
 * is written to the parked topics instead, in the log transaction of its source transaction. Records of every origin come through here, in the order of
 * the stream: changes, rows of snapshots, tombstones of a TRUNCATE.
 */
export class Parking {
  /** Its own topics: their records are no rows. */
  readonly topics: readonly string[];
  readonly #contracts: ReadonlyMap<string, NonNullable<CapturedTable['contract']>>;
  readonly #contractTopics: ReadonlySet<string>;
  readonly #guards = new Map<string, Guard>();
  readonly #limits = new Map<string, number>();
  readonly #partitions = new Map<string, number>();
  readonly #parkedTopic: string;
  readonly #stateTopic: string;
  #entries: ParkedEntries | undefined;
  #sink: ParkingSink | undefined;
  /** What is wrong with the record that is published again just now. */
  #again: { fault: unknown } | undefined;

  private constructor(private readonly options: ResolvedOptions) {
    const ruled = options.tables.filter(({ contract }) => contract !== undefined);
    this.#contracts = new Map(ruled.map(({ table, contract }) => [table, contract!]));
    this.#contractTopics = new Set(ruled.map(({ topic }) => topic));
    const name = parkedNameOf(options.name);
    this.#parkedTopic = parkedTopicOf(name);
    this.#stateTopic = stateTopicOf(name);
    this.topics = parkingTopics(options.name).map(({ topic }) => topic);
  }

  /**
   * To be called after the fence. Undefined: nothing is to be looked at. What was parked under another policy stays parked, with what follows on its key.
   */
  static async open(options: ResolvedOptions): Promise<Parking | undefined> {
    const parking = new Parking(options);
    const topic = parking.#stateTopic;
    const { log } = options;
    const isThere = options.onRefused === 'park' || (await log.admin.partitionCounts([topic])).has(topic);
    if (!isThere) return parking.#contracts.size === 0 ? undefined : parking;
    const put = (record: OutRecord) => parking.#sink!.add(record);
    const onTopic = (of: string) => parking.#sink!.watch(of);
    parking.#entries = await ParkedEntries.read({ log, topic, put, onTopic });
    return parking;
  }

  attach(sink: ParkingSink): void {
    this.#sink = sink;
  }

  /** Absent: nothing was ever parked, and nothing is. */
  get entries(): ParkedEntries | undefined {
    return this.#entries;
  }

  /** The guard of a topic that is opened, or whose limits were read again. */
  guard(topic: string, limits: TopicLimits): RecordGuard | undefined {
    this.#partitions.set(topic, limits.partitions);
    const most = roomOf(limits);
    this.#limits.set(topic, most);
    const { schemasTopic, transactionsTopic } = this.options;
    if ([...this.topics, schemasTopic, transactionsTopic].includes(topic)) return undefined;
    let guard = this.#guards.get(topic);
    if (guard === undefined) this.#guards.set(topic, (guard = new Guard(this, topic)));
    // A refusal by the log itself names more than is known here, and halts.
    guard.maxRecordBytes = this.options.onRefused === 'park' ? most : Infinity;
    return guard;
  }

  looksAtAll(topic: string): boolean {
    return this.#contractTopics.has(topic) || this.#entries?.hasAny(topic) === true;
  }

  /** Where the parked keys of a table would be live. */
  places(topic: string, table: string): readonly string[] {
    const partitions = this.partitionsOf(topic);
    const parked = this.#entries?.keys(topic, table) ?? [];
    return parked.map(({ key, partition }) => placeOf(key, partition, partitions));
  }

  partitionsOf(topic: string): number {
    return this.#partitions.get(topic)!;
  }

  keepsOut(record: OutRecord, bytes: number): boolean {
    if (this.#again === undefined && this.#entries?.has(sequenceOf(record)) === true) {
      this.#park(record, new HeadwaterError('KEY_PARKED', 'an earlier change of this key is parked'));
      return true;
    }
    const fault = this.#faultOf(record, bytes);
    if (fault === undefined) return false;
    if (this.#again !== undefined) this.#again.fault = fault;
    else if (this.options.onRefused === 'halt') throw halting(record, fault);
    else this.#park(record, fault);
    return true;
  }

  /** A row that cannot be encoded; its value is what of it can be told. False: capture halts. */
  refuse(record: OutRecord, error: unknown): boolean {
    if (this.options.onRefused === 'halt') return false;
    this.#park({ ...record, headers: [...(record.headers ?? []), RAW_VALUE] }, error);
    return true;
  }

  /** Publishes a record of a parked key. Returns what is wrong with it: then it was not published. */
  publishAgain(record: OutRecord): unknown {
    const again: { fault: unknown } = { fault: undefined };
    this.#again = again;
    try {
      this.#sink!.add(record);
    } finally {
      this.#again = undefined;
    }
    return again.fault;
  }

  #faultOf(record: OutRecord, bytes: number): unknown {
    const { topic, value } = record;
    const most = this.#limits.get(topic);
    if (this.options.onRefused === 'park' && most !== undefined && bytes > most) return tooLarge(record, bytes, most);
    const table = headerText(record.headers ?? [], 'hw_table');
    const contract = table === undefined ? undefined : this.#contracts.get(table);
    if (contract === undefined || value === null) return undefined;
    try {
      decodeMessage(contract, value);
      return undefined;
    } catch (error) {
      if (error instanceof ContractError) return error;
      throw error;
    }
  }

  #park(made: OutRecord, error: unknown): void {
    const partition = made.key === null ? 0 : partitionOf(made.key, this.partitionsOf(made.topic));
    const record: LogRecord = { partition, headers: [], ...made, offset: -1, timestamp: this.options.clock.now() };
    const sequence = sequenceOf(record);
    const isFirst = !this.#entries!.has(sequence);
    const whole = { unit: { record }, code: errorCode(error) ?? 'CDC_VALUE_INVALID', reason: errorMessage(error) };
    const size = sequence.length + encodeParkedUnit({ ...whole, bare: false }).length + RECORD_BYTES;
    const unit = { ...whole, bare: size > this.#limits.get(this.#stateTopic)! };
    appendParked(this.#entries!, sequence, unit);
    this.#entries!.of(sequence, unit);
    this.#sink!.add(this.#copyOf(record, unit));
    if (isFirst) this.options.logger.warn(`capture ${this.options.name}: parked ${describe(record)}: ${unit.reason}`);
  }

  /** For people: the record as it would have been published, with why it was not. */
  #copyOf({ topic, partition, key, value, headers }: LogRecord, { code, reason }: ParkedUnit): OutRecord {
    const why = textHeaders({ hw_parked_topic: topic, hw_parked_code: code, hw_parked_reason: reason });
    const copy = { topic: this.#parkedTopic, partition: 0, key, value, headers: [...headers, ...why] };
    const partitioned = {
      ...copy,
      headers: [...copy.headers, ...textHeaders({ hw_parked_partition: `${partition}` })],
    };
    if (sizeOf(partitioned) <= this.#limits.get(this.#parkedTopic)!) return partitioned;
    const omitted = textHeaders({ hw_parked_value: 'omitted' });
    return { ...partitioned, value: null, headers: [...partitioned.headers, ...omitted] };
  }
}

class Guard implements RecordGuard {
  maxRecordBytes = Infinity;

  constructor(
    private readonly parking: Parking,
    private readonly topic: string,
  ) {}

  get all(): boolean {
    return this.parking.looksAtAll(this.topic);
  }

  keepsOut(record: OutRecord, bytes: number): boolean {
    return this.parking.keepsOut(record, bytes);
  }
}

function sizeOf({ key, value, headers }: OutRecord): number {
  const named = (headers ?? []).reduce((sum, [name, bytes]) => sum + 10 + 3 * name.length + (bytes?.length ?? 0), 0);
  return RECORD_BYTES + named + (key?.length ?? 0) + (value?.length ?? 0);
}

/** What a change is called for people: nothing of its value. */
export function describe({ topic, key, headers = [] }: OutRecord): string {
  const of = (name: string) => headerText(headers, name);
  return `${of('hw_op') ?? 'message'} of ${of('hw_table') ?? topic} with key ${JSON.stringify(key?.toString() ?? null)} at ${of('hw_lsn')} (transaction ${of('hw_tx')}, ${of('hw_seq')})`;
}

function factsOf({ topic, key, headers = [] }: OutRecord) {
  const table = headerText(headers, 'hw_table');
  return {
    topic,
    key: key?.toString() ?? null,
    lsn: headerText(headers, 'hw_lsn'),
    ...(table !== undefined && { table }),
  };
}

function tooLarge(record: OutRecord, bytes: number, limit: number): CaptureError {
  return new CaptureError(
    'CDC_RECORD_REFUSED',
    `the record takes ${bytes} bytes, and ${record.topic} takes ${limit}. Raise max.message.bytes of the topic, then retry what is parked; or discard it.`,
    { ...factsOf(record), bytes, limit },
  );
}

function halting(record: OutRecord, cause: unknown): CaptureError {
  return new CaptureError(
    'CDC_CONTRACT_VIOLATED',
    `${describe(record)} breaks its contract: ${errorMessage(cause)} Nothing of its transaction was published or acknowledged. Mend the contract, then start capture again; or set onRefused to "park".`,
    factsOf(record),
    cause,
  );
}
