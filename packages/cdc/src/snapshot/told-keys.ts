/** Beyond this many keys of one table no more are remembered: 20 MB or so. */
const MOST_KEYS = 200_000;
const NONE: ReadonlySet<string> = new Set();

/**
 * Keys of tables under snapshot that the stream has told in this life of the connection. Their rows are in the topic already, as new as any
 * read: whoever reads them afterwards need not publish them again. What is forgotten (too many, a crash) is only told twice.
 */
export class ToldKeys {
  readonly #tables = new Map<string, Set<string>>();

  constructor(private readonly mostKeys = MOST_KEYS) {}

  follow(table: string): void {
    if (!this.#tables.has(table)) this.#tables.set(table, new Set());
  }

  forget(table: string): void {
    this.#tables.delete(table);
  }

  follows(table: string): boolean {
    return this.#tables.has(table);
  }

  add(table: string, key: string): void {
    const keys = this.#tables.get(table);
    if (keys !== undefined && keys.size < this.mostKeys) keys.add(key);
  }

  /** Stays as it is when the table is forgotten. */
  of(table: string): ReadonlySet<string> {
    return this.#tables.get(table) ?? NONE;
  }
}
