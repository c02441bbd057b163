/** The switch of a running processor: its member keeps its partitions while nothing is handled. */
export class Pause {
  readonly #subscribers = new Set<() => void>();
  #paused: { readonly atRest: Promise<void>; readonly rest: () => void } | undefined;

  get isPaused(): boolean {
    return this.#paused !== undefined;
  }

  /** Resolves when everything that was handled is committed; also when it was resumed meanwhile. */
  pause(): Promise<void> {
    if (this.#paused === undefined) {
      let rest!: () => void;
      const atRest = new Promise<void>((resolve) => (rest = resolve));
      this.#paused = { atRest, rest };
      this.#tell();
    }
    return this.#paused.atRest;
  }

  resume(): void {
    this.#paused?.rest();
    this.#paused = undefined;
    this.#tell();
  }

  /** Whoever does the work has come to rest. */
  rest(): void {
    this.#paused?.rest();
  }

  /** Calls back at each change, until the returned function is called. */
  subscribe(onChange: () => void): () => void {
    this.#subscribers.add(onChange);
    return () => void this.#subscribers.delete(onChange);
  }

  #tell(): void {
    for (const onChange of this.#subscribers) onChange();
  }
}
