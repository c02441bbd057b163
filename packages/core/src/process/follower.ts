import { errorMessage } from '../errors/headwater.error.js';
import type { Logger } from '../lifecycle/running.js';
import { backoffMs } from '../clock/clock.js';
import { CopyReader, type CopyContext } from './copy-reader.js';

export interface FollowerContext extends CopyContext {
  readonly logger: Logger;
}

const POLL_MS = 250;

/**
 * Keeps copies of a topic's partitions up to date until it is stopped. What fails is told to the logger and tried again: a copy that is
 * behind stays right as of its stamp.
 */
export class Follower {
  readonly #context: FollowerContext;
  readonly #stopping = new AbortController();
  readonly #reached: Promise<void>;
  readonly #running: Promise<void>;
  #copies: CopyReader | undefined;
  #reach!: () => void;

  constructor(context: FollowerContext) {
    this.#context = context;
    this.#reached = new Promise((resolve) => (this.#reach = resolve));
    this.#running = this.#run();
  }

  /** Resolves when the copies include everything that was committed when this began, or when it is stopped before. */
  get reached(): Promise<void> {
    return this.#reached;
  }

  /** The copies change no more afterwards. May be called twice. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#copies?.interrupt();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, logger, topic } = this.#context;
    const { signal } = this.#stopping;
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        await this.#follow(() => (attempt = 0));
      } catch (error) {
        if (signal.aborted) break;
        logger.warn(`the copy of ${topic} is followed again from where it stands: ${errorMessage(error)}`);
        await clock.wait(backoffMs(attempt), signal);
      }
    }
    this.#reach();
  }

  async #follow(advanced: () => void): Promise<void> {
    const copies = new CopyReader(this.#context);
    this.#copies = copies;
    try {
      await copies.begin();
      while (!this.#stopping.signal.aborted) {
        if (copies.hasReachedAll) this.#reach();
        await copies.advance(POLL_MS);
        advanced();
      }
    } finally {
      await copies.close();
    }
  }
}
