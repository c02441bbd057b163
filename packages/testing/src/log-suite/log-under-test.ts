import type {
  Assignment,
  FetchedBatch,
  GroupOptions,
  Log,
  LogGroup,
  LogRecord,
  LogWriter,
  OutRecord,
  Share,
  Tenure,
} from '@headwater/core';
import { eventually } from '../eventually.js';
import { uniqueName } from '../unique-name.js';

/** A client whose way to the log loses what it is told to. */
export interface LossyLog {
  readonly log: Log;
  /** From now on requests that end a transaction are lost, or their answers, or nothing. */
  readonly lose: (what: 'request' | 'answer' | 'nothing') => void;
}

/** What the driver suite runs on. Whatever it opens is closed by the suite. */
export interface LogUnderTest {
  /** Connects another client to the same log. */
  open(): Log | Promise<Log>;
  /** A client that gives up on an answer after about a second. */
  openLossy(): LossyLog | Promise<LossyLog>;
}

/** What every case needs: clients that are closed behind it, topics of its own, and ways to look. */
export class Bench {
  readonly #under: LogUnderTest;
  readonly #opened: Log[] = [];
  #log: Log | undefined;

  constructor(under: LogUnderTest) {
    this.#under = under;
  }

  /** The client most cases use. */
  get log(): Log {
    return this.#log!;
  }

  async start(): Promise<void> {
    this.#log = await this.another();
  }

  async another(): Promise<Log> {
    const log = await this.#under.open();
    this.#opened.push(log);
    return log;
  }

  async lossy(): Promise<LossyLog> {
    const lossy = await this.#under.openLossy();
    this.#opened.push(lossy.log);
    return lossy;
  }

  async close(): Promise<void> {
    for (const log of this.#opened.splice(0).reverse()) await log.close();
  }

  async topic(partitions = 1, config: Readonly<Record<string, string>> = {}): Promise<string> {
    const topic = uniqueName('suite');
    await this.log.admin.ensureTopics([{ topic, partitions, cleanupPolicy: 'delete', config }]);
    return topic;
  }

  /** A writer that may write. */
  async writer(options: { transactionalId?: string; transactionTimeoutMs?: number } = {}, log = this.log) {
    const writer: LogWriter = log.writer({ transactionalId: uniqueName('writer'), ...options });
    await writer.fence();
    return writer;
  }

  /** Everything committed in the topic, by partition and offset, once no transaction is open on it. */
  async committed(topic: string): Promise<LogRecord[]> {
    // The answer to a commit may come before its markers.
    const ends = await eventually(async () => {
      const offsets = await this.log.admin.offsets(topic);
      if (offsets.some(({ lastStable, high }) => lastStable < high)) throw new Error(`${topic} has open transactions`);
      return offsets;
    });
    const reader = this.log.reader();
    const left = new Map(ends.filter((of) => of.start < of.high).map((of) => [of.partition, of.high]));
    for (const { partition, start } of ends) if (left.has(partition)) reader.seek(topic, partition, start);
    const records: LogRecord[] = [];
    while (left.size > 0) {
      for (const batch of await reader.poll()) {
        records.push(...batch.records);
        if (batch.nextOffset >= left.get(batch.partition)!) left.delete(batch.partition);
      }
    }
    await reader.close();
    return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
  }

  async texts(topic: string): Promise<(string | null)[]> {
    return texts(await this.committed(topic));
  }

  /** Polls from an offset of partition 0 until a record with that text comes. */
  async readTo(topic: string, from: number, last: string, reader = this.log.reader()): Promise<LogRecord[]> {
    reader.seek(topic, 0, from);
    const records: LogRecord[] = [];
    while (records.at(-1)?.value?.toString() !== last) records.push(...recordsOf(await reader.poll()));
    return records;
  }

  /** A member that does nothing but hold what it is given. */
  member(groupId: string, topics: readonly string[], log = this.log) {
    const group: LogGroup = log.group({ groupId, topics });
    const assignments: Assignment[] = [];
    const errors: unknown[] = [];
    const running = group.run(
      async (assignment) => {
        assignments.push(assignment);
        await aborted(assignment.signal);
      },
      (error) => errors.push(error),
    );
    /** Its assignment, once it is one of that many partitions. */
    const holding = (count: number): Promise<Assignment> =>
      eventually(() => {
        const last = assignments.at(-1);
        if (last === undefined || last.signal.aborted || last.partitions.length !== count)
          throw new Error(`the member does not hold ${count} partitions`);
        return last;
      });
    return { group, assignments, errors, running, holding };
  }

  /** A member that gives nothing back by itself. */
  holder(groupId: string, topics: readonly string[], options: Partial<GroupOptions> = {}) {
    const group = this.log.group({ groupId, topics, ...options });
    const tenures: Tenure[] = [];
    const errors: unknown[] = [];
    const running = group.hold(
      async (tenure) => {
        tenures.push(tenure);
        while (!tenure.signal.aborted) {
          for (const share of tenure.shares) share.take();
          await tenure.next();
        }
      },
      (error) => errors.push(error),
    );
    const shares = (): readonly Share[] => tenures.at(-1)?.shares ?? [];
    /** What it holds, once that is so many partitions, of which so many are asked back. */
    const holding = (count: number, asked = 0): Promise<readonly Share[]> =>
      eventually(() => {
        const held = shares();
        const back = held.filter(({ signal }) => signal.aborted);
        if (held.length !== count || back.length !== asked)
          throw new Error(`it holds ${held.length}, ${back.length} of them asked back; not ${count} and ${asked}`);
        return held;
      });
    return { group, tenures, errors, running, shares, holding };
  }
}

/** A record for partition 0. */
export function one(topic: string, text: string, key: Buffer | null = null): OutRecord[] {
  return [{ topic, partition: 0, key, value: Buffer.from(text) }];
}

/** A record whose key, and so its partition, is its text. */
export function keyed(topic: string, text: string): OutRecord {
  return { topic, key: Buffer.from(text), value: Buffer.from(text) };
}

export function texts(records: readonly LogRecord[]): (string | null)[] {
  return records.map(({ value }) => value?.toString() ?? null);
}

export function recordsOf(batches: readonly FetchedBatch[]): LogRecord[] {
  return batches.flatMap(({ records }) => [...records]);
}

export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
