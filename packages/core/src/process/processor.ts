import type { LogRecord, OutRecord } from '../log/log.js';
import type { Table } from './global-table.js';

/** What a handler may do. All of it becomes real together with the offset of the record, or not at all. */
export interface ProcessContext {
  /** Wall time of this batch, milliseconds since 1970. */
  readonly now: number;
  /** Keyed state of this task. Reads see what earlier records of the same batch wrote. */
  readonly state: {
    get(key: string): Buffer | undefined;
    put(key: string, value: Buffer): void;
    delete(key: string): void;
  };
  readonly timers: {
    /** Calls `onTimer` once, not before `atMs`, across crashes. Setting the same id again moves it. */
    set(id: string, atMs: number): void;
    cancel(id: string): void;
  };
  send(record: OutRecord): void;
  /**
   * A declared table: what this instance has seen of all its partitions. It runs beside the inputs and is no part of the transaction: a
   * record handled again after a crash may see a later value.
   */
  table(topic: string): Table;
}

export interface DueTimer {
  readonly id: string;
  readonly atMs: number;
}

/**
 * A keyed, stateful, exactly-once function from topics to topics.
 * Order: records of one key in log order; due timers before the records of a batch.
 * A handler that throws leaves no trace of that record. Rejected and ContractError park the record's key at once; any other error is
 * tried again a few times, then parked.
 */
export interface ProcessorDefinition {
  /** Names its group, its state topic and its parking topic. */
  readonly name: string;
  /** Co-partitioned: equal partition counts, one key in the same partition of all. */
  readonly inputs: readonly string[];
  /** Compacted topics of any partition count that every instance keeps whole in memory, read before the first record is handled. */
  readonly tables?: readonly string[];
  onRecord(record: LogRecord, context: ProcessContext): void | Promise<void>;
  onTimer?(timer: DueTimer, context: ProcessContext): void | Promise<void>;
}

export const groupOf = (processor: string): string => `headwater.${processor}`;
export const stateTopicOf = (processor: string): string => `headwater.${processor}.state`;
export const parkedTopicOf = (processor: string): string => `headwater.${processor}.parked`;
