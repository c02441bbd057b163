import type { Header, Log, OutRecord } from '@headwater/core';
import { readRecords } from './position.js';
import type { SourceHeaders, TableShape } from './rows.js';

/** What is told of one version of a table: its columns as they are published, and its key. */
export interface SchemaVersion {
  readonly columns: readonly { readonly name: string; readonly type: string; readonly rule?: string }[];
  readonly key: readonly string[];
}

/**
 * The versions of the captured tables, in a compacted topic: key is the table, value the version and the LSN of the first transaction in the stream that has
 * rows of it. A version is written in the log transaction of the first row that uses it. One per connection: what it has read is what is committed.
 */
export class SchemaLog {
  /** Last recorded version by table, as text. */
  readonly #recorded = new Map<string, string>();
  /** Seen in transactions that are published already, which may come again with shapes that are over. */
  readonly #later = new Map<string, TableShape>();

  private constructor(readonly topic: string) {}

  static async read(log: Log, topic: string): Promise<SchemaLog> {
    const schemas = new SchemaLog(topic);
    const [bounds] = await log.admin.offsets(topic);
    if (bounds === undefined || bounds.start >= bounds.lastStable) return schemas;
    await readRecords(log, topic, 0, bounds.start, bounds.lastStable, ({ key, value }) => {
      if (key === null || value === null) return;
      const { columns, key: of } = JSON.parse(value.toString()) as SchemaVersion;
      schemas.#recorded.set(key.toString(), textOf({ columns, key: of }));
    });
    return schemas;
  }

  knows(table: string): boolean {
    return this.#recorded.has(table);
  }

  /** The stream describes a table within a transaction that is skipped. */
  seen(shape: TableShape): void {
    this.#later.set(shape.table, shape);
  }

  /** The records to be published before what comes next in this transaction. `shape`: described just now. */
  due(source: Pick<SourceHeaders, 'lsn' | 'ts'>, shape?: TableShape): readonly OutRecord[] {
    if (shape !== undefined) this.#later.set(shape.table, shape);
    const records = [...this.#later.values()].flatMap((each) => this.#record(each, source));
    this.#later.clear();
    return records;
  }

  get hasLater(): boolean {
    return this.#later.size > 0;
  }

  #record({ table, version, header }: TableShape, { lsn, ts }: Pick<SourceHeaders, 'lsn' | 'ts'>): OutRecord[] {
    const text = textOf(version);
    if (this.#recorded.get(table) === text) return [];
    this.#recorded.set(table, text);
    const value = JSON.stringify({ table, lsn: lsn[1]!.toString(), ...version });
    const headers: Header[] = [lsn, ts, header];
    return [{ topic: this.topic, partition: 0, key: Buffer.from(table), value: Buffer.from(value), headers }];
  }
}

const textOf = ({ columns, key }: SchemaVersion): string =>
  JSON.stringify([columns.map(({ name, type, rule }) => [name, type, rule ?? null]), key]);
