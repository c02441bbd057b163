import { setTimeout as delay } from 'node:timers/promises';

/** Reads the positions of a capture as they are committed, and notes when each was seen. */
export class PositionTail {
  #log;
  #over = new AbortController();
  #reading;
  #times = [];
  #endLsn = 0n;
  topic;

  constructor(log, topic) {
    this.#log = log;
    this.topic = topic;
  }

  get count() {
    return this.#times.length;
  }

  start() {
    this.#reading = this.#read();
    this.#reading.catch(() => undefined);
  }

  /** When the first position since `time` was seen; undefined: none so far. */
  firstSince(time) {
    return this.#times.find((at) => at >= time);
  }

  /** Resolves when a position covers this LSN. */
  async reached(lsn) {
    while (this.#endLsn < parsed(lsn)) {
      if (this.#over.signal.aborted) throw new Error('the reader of positions was stopped');
      await Promise.race([delay(20), this.#reading]);
    }
  }

  async stop() {
    this.#over.abort();
    await this.#reading?.catch(() => undefined);
  }

  async #read() {
    const { signal } = this.#over;
    const reader = this.#log.reader();
    try {
      reader.seek(this.topic, 0, 0);
      while (!signal.aborted) {
        for (const { records } of await reader.poll({ maxWaitMs: 200, signal })) {
          for (const { value } of records) {
            if (value === null) continue;
            this.#times.push(performance.now());
            const { endLsn } = JSON.parse(value.toString());
            if (endLsn !== undefined && parsed(endLsn) > this.#endLsn) this.#endLsn = parsed(endLsn);
          }
        }
      }
    } finally {
      await reader.close();
    }
  }
}

function parsed(lsn) {
  const [high, low] = lsn.split('/');
  return (BigInt(`0x${high}`) << 32n) + BigInt(`0x${low}`);
}
