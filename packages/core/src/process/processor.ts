import type { LogRecord, OutRecord } from '../log/log.js';
import type { Table } from './global-table.js';

/** What a handler may do. All of it becomes real together with the offset of the record, or not at all. */
export interface ProcessContext {
  /** Wall time of this batch, milliseconds since 1970. */
  readonly now: number;
  /** Keyed state of this task. Reads see what earlier records of the same batch wrote. */
  readonly state: {
    get(key: string): Buffer | undefined;
    /** The Buffer belongs to the state from now on, as those in `send` to the log: do not change it. */
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

/** What happens to a record or timer whose handler throws something that a repetition may mend. */
export interface FailurePolicy {
  /** How often the handler is called in all, with growing pauses. */
  readonly attempts: number;
  /**
   * `park`: set aside for an operator, with all that follows on its key; the rest flows on. `stop`: nothing is set aside, the processor
   * halts with its health down and goes on from the same record when it is started again. Choose it where order over keys matters more
   * than progress.
   */
  readonly finally: 'park' | 'stop';
}

export const DEFAULT_FAILURE_POLICY: FailurePolicy = Object.freeze({ attempts: 3, finally: 'park' });

/**
 * A keyed, stateful, exactly-once function from topics to topics.
 * Order: records of one key in log order; due timers before the records of a batch.
 * A handler that throws leaves no trace of that record. Rejected and ContractError park the record's key at once, any other error by
 * `onFailure`. What is parked waits for an operator, who can have it handled again, changed or dropped (`controlParked`).
 */
export interface ProcessorDefinition {
  /** Names its group and its topics: state, parked, control. */
  readonly name: string;
  /**
   * Raise it when the inputs change so that what the state remembers of them no longer applies: an input is left out or renamed. The
   * state refuses older versions from then on. Default 1.
   */
  readonly version?: number;
  /** Co-partitioned: equal partition counts, one key in the same partition of all. */
  readonly inputs: readonly string[];
  /** Compacted topics of any partition count that every instance keeps whole in memory, read before the first record is handled. */
  readonly tables?: readonly string[];
  /**
   * The topics it sends to. Declared, they are waited for before anything is handled, and a record that is sent elsewhere is parked at once; not declared, one that
   * is sent to a topic that does not exist is parked when the log has refused it.
   */
  readonly outputs?: readonly string[];
  onRecord(record: LogRecord, context: ProcessContext): void | Promise<void>;
  onTimer?(timer: DueTimer, context: ProcessContext): void | Promise<void>;
  /** Default: three attempts, then `park`. */
  readonly onFailure?: FailurePolicy;
  /**
   * When the next record of an input is no longer in the log: `stop` halts with an error that names partition, wanted offset and range;
   * `restart` goes on with the earliest record left, and says so in the log. Nothing ever goes on at the end. Default `stop`.
   */
  readonly onLostInput?: 'stop' | 'restart';
}

export const groupOf = (processor: string): string => `headwater.${processor}`;
export const stateTopicOf = (processor: string): string => `headwater.${processor}.state`;
export const parkedTopicOf = (processor: string): string => `headwater.${processor}.parked`;
/** What operators ask of the tasks, as an input of the processor: partition n speaks to task n. Made by the processor when it is missing. */
export const controlTopicOf = (processor: string): string => `headwater.${processor}.control`;
