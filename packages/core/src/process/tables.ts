import { HeadwaterError } from '../errors/headwater.error.js';
import type { Clock } from '../clock/clock.js';
import { unlessAborted } from '../clock/unless-aborted.js';
import type { Log, OutRecord } from '../log/log.js';
import type { Logger } from '../lifecycle/running.js';
import { Follower } from './follower.js';
import { GlobalTable, type Table } from './global-table.js';
import type { ProcessContext, ProcessorDefinition } from './processor.js';

export interface TablesContext {
  readonly log: Log;
  readonly topics: readonly string[];
  readonly clock: Clock;
  readonly logger: Logger;
  readonly tombstonesMs: number;
}

/** The global tables of a processor: every instance follows all partitions of their topics, whatever it is assigned. */
export class Tables {
  readonly #context: TablesContext;
  readonly #opened = new Map<string, { readonly table: GlobalTable; readonly follower: Follower }>();

  constructor(context: TablesContext) {
    this.#context = context;
  }

  /** Resolves when the tables include what was committed when they were first opened, or when the signal aborts. */
  async open(signal: AbortSignal): Promise<void> {
    const { log, topics, clock, logger, tombstonesMs } = this.#context;
    const missing = topics.filter((topic) => !this.#opened.has(topic));
    const counts = missing.length === 0 ? new Map<string, number>() : await log.admin.partitionCounts(missing);
    for (const topic of missing) {
      const count = counts.get(topic);
      if (count === undefined) throw topicMissing(topic);
      const table = new GlobalTable(count);
      const follower = new Follower({ log, topic, copies: table.copies, clock, logger, tombstonesMs });
      this.#opened.set(topic, { table, follower });
    }
    const reached = Promise.all([...this.#opened.values()].map(({ follower }) => follower.reached));
    await unlessAborted(reached, signal);
  }

  /** Throws PROCESS_TABLE_UNKNOWN for a topic that the processor did not declare. */
  table(topic: string): Table {
    const opened = this.#opened.get(topic);
    if (opened === undefined) throw tableUnknown(topic);
    return opened.table;
  }

  async close(): Promise<void> {
    for (const { follower } of this.#opened.values()) await follower.stop();
  }
}

/** The definition with its handlers' contexts knowing the tables. */
export function withTables(definition: ProcessorDefinition, tables: Tables): ProcessorDefinition {
  if ((definition.tables ?? []).length === 0) return definition;
  return {
    ...definition,
    onRecord: (record, context) => definition.onRecord(record, new TableContext(context, tables)),
    onTimer: (timer, context) => definition.onTimer?.(timer, new TableContext(context, tables)),
  };
}

class TableContext implements ProcessContext {
  readonly #context: ProcessContext;
  readonly #tables: Tables;

  constructor(context: ProcessContext, tables: Tables) {
    this.#context = context;
    this.#tables = tables;
  }

  get now(): number {
    return this.#context.now;
  }

  get state(): ProcessContext['state'] {
    return this.#context.state;
  }

  get timers(): ProcessContext['timers'] {
    return this.#context.timers;
  }

  send(record: OutRecord): void {
    this.#context.send(record);
  }

  table(topic: string): Table {
    return this.#tables.table(topic);
  }
}

function topicMissing(topic: string): HeadwaterError {
  return new HeadwaterError('LOG_TOPIC_MISSING', `the table topic ${topic} does not exist. Create it: ensureTopics.`, {
    retryable: true,
    facts: { topic },
  });
}

export function tableUnknown(topic: string): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_TABLE_UNKNOWN',
    `${topic} is not a table of this processor, or was not read yet. Name it in the definition's \`tables\`.`,
    { facts: { topic } },
  );
}
