import type { Lsn } from './lsn.js';

interface Sample {
  readonly atMs: number;
  readonly walLsn: Lsn;
}

/** Beyond this many samples every second one is forgotten: the error grows with the age, never the memory. */
const MAX_SAMPLES = 1_024;

/** How long ago the WAL first held what is not published yet. Fed with the end of the server's WAL, read about once a second. */
export class Lag {
  #samples: Sample[] = [];

  sample(atMs: number, walLsn: Lsn): void {
    this.#samples.push({ atMs, walLsn });
    if (this.#samples.length > MAX_SAMPLES) this.#samples = this.#samples.filter((_, i) => i % 2 === 0);
  }

  /** WAL behind `published`, as of the last sample. Undefined before the first. */
  bytes(published: Lsn): number | undefined {
    const last = this.#samples.at(-1);
    return last === undefined ? undefined : Math.max(0, Number(last.walLsn - published));
  }

  /**
   * Milliseconds, 0 when everything known of is published. Grows with `nowMs` alone, also while nothing can be read from the server. Undefined
   * before the first sample. `publishedAgeMs`: how old the last published change is; it tells more than the samples as long as none of them
   * was caught up with.
   */
  ms(nowMs: number, published: Lsn, publishedAgeMs = 0): number | undefined {
    const last = this.#samples.at(-1);
    if (last === undefined) return undefined;
    if (last.walLsn <= published) {
      this.#samples = [last];
      return 0;
    }
    const behind = this.#samples.findIndex((sample) => sample.walLsn > published);
    const ageMs = nowMs - this.#samples[behind]!.atMs;
    // The last sample that was caught up with stays: it tells that the first one behind it is where the lag began.
    if (behind > 1) this.#samples.splice(0, behind - 1);
    return Math.max(0, ageMs, behind === 0 ? publishedAgeMs : 0);
  }
}
