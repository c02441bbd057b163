/** About what a Map entry, its name and its Buffer object take besides the bytes. */
const ENTRY_BYTES = 200;

/**
 * What was read or written lately, in two generations: what is not asked for while the young one fills up is forgotten. `null` stands for
 * "there is none". Holds `maxBytes` at most, about.
 */
export class ReadCache {
  readonly #halfBytes: number;
  #young = new Map<string, Buffer | null>();
  #old = new Map<string, Buffer | null>();
  #youngBytes = 0;

  constructor(maxBytes: number) {
    this.#halfBytes = maxBytes / 2;
  }

  get(entry: string): Buffer | null | undefined {
    const young = this.#young.get(entry);
    if (young !== undefined) return young;
    const old = this.#old.get(entry);
    if (old !== undefined) this.set(entry, old);
    return old;
  }

  set(entry: string, value: Buffer | null): void {
    this.#young.set(entry, value);
    this.#youngBytes += ENTRY_BYTES + (value?.length ?? 0);
    if (this.#youngBytes < this.#halfBytes) return;
    this.#old = this.#young;
    this.#young = new Map();
    this.#youngBytes = 0;
  }

  clear(): void {
    this.#young.clear();
    this.#old.clear();
    this.#youngBytes = 0;
  }
}
