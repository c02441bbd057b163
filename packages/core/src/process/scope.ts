import { HeadwaterError } from '../errors/headwater.error.js';
import type { Header, OutRecord } from '../log/log.js';
import type { Table } from './global-table.js';
import type { ProcessContext } from './processor.js';
import { tableUnknown } from './tables.js';
import type { WriteSet } from './write-set.js';

const LAST_PARTITION = 2 ** 31 - 1;
/** What Kafka takes as the name of a topic. */
const TOPIC = /^(?!\.{1,2}$)[\w.-]{1,249}$/;
const NO_HEADERS: readonly Header[] = [];

/** What one call of a handler may do, until it is over. One object per call, because there are a hundred thousand a second. */
export class Scope implements ProcessContext {
  readonly now: number;
  readonly #writes: WriteSet;
  readonly #onTimer: ((id: string) => void) | undefined;
  readonly #outputs: ReadonlySet<string> | undefined;
  #over = false;
  /** The key asked for last, and its entry: most handlers read what they write. */
  #key: string | undefined;
  #entry = '';

  /** `onTimer` is told of each timer that is set or cancelled; `outputs`: the only topics to send to. */
  constructor(writes: WriteSet, now: number, onTimer?: (id: string) => void, outputs?: ReadonlySet<string>) {
    this.#outputs = outputs;
    this.#writes = writes;
    this.now = now;
    this.#onTimer = onTimer;
  }

  get state(): ProcessContext['state'] {
    return this;
  }

  get timers(): ProcessContext['timers'] {
    return this;
  }

  get(key: string): Buffer | undefined {
    const value = this.#open().get(this.#entryOf(key));
    // A copy: what the handler does with it is no write (P5).
    return value === undefined ? undefined : Buffer.from(value);
  }

  put(key: string, value: Buffer): void {
    if (!Buffer.isBuffer(value)) throw argumentInvalid('state.put', 'the value', 'a Buffer', value);
    this.#open().set(this.#entryOf(key), value);
  }

  delete(key: string): void {
    this.#open().set(this.#entryOf(key), null);
  }

  set(id: string, atMs: number): void {
    if (!Number.isFinite(atMs)) throw argumentInvalid('timers.set', 'the time', 'a finite number', atMs);
    this.#open().set(`t:${id}`, Buffer.from(String(atMs)));
    this.#onTimer?.(id);
  }

  cancel(id: string): void {
    const writes = this.#open();
    if (writes.get(`t:${id}`) !== undefined) writes.set(`t:${id}`, null);
    this.#onTimer?.(id);
  }

  send(record: OutRecord): void {
    check(record);
    if (this.#outputs !== undefined && !this.#outputs.has(record.topic)) throw outputUnknown(record.topic);
    this.#open().send(record);
  }

  /** Only processors that declare tables have any: `withTables`. */
  table(topic: string): Table {
    throw tableUnknown(topic);
  }

  /** The handler has returned: what it still tries to do would land in another record's transaction. */
  end(): void {
    this.#over = true;
  }

  #entryOf(key: string): string {
    if (key !== this.#key) {
      this.#key = key;
      this.#entry = `s:${key}`;
    }
    return this.#entry;
  }

  #open(): WriteSet {
    if (this.#over) {
      throw new HeadwaterError(
        'PROCESS_CONTEXT_OVER',
        'the handler of this context has returned. Await everything that uses the context before the handler ends.',
      );
    }
    return this.#writes;
  }
}

/** What the log could not even encode would end the work of all records, again and again; so it ends this one. */
function check({ topic, partition, key, value, headers = NO_HEADERS, timestamp }: OutRecord): void {
  if (typeof topic !== 'string' || !TOPIC.test(topic)) throw argumentInvalid('send', 'the topic', 'a name', topic);
  if (key !== null && !Buffer.isBuffer(key)) throw argumentInvalid('send', 'the key', 'a Buffer or null', key);
  if (value !== null && !Buffer.isBuffer(value)) throw argumentInvalid('send', 'the value', 'a Buffer or null', value);
  if (partition !== undefined && !(Number.isInteger(partition) && partition >= 0 && partition <= LAST_PARTITION))
    throw argumentInvalid('send', 'the partition', 'its number, or absent', partition);
  if (timestamp !== undefined && !Number.isSafeInteger(timestamp))
    throw argumentInvalid('send', 'the timestamp', 'whole milliseconds, or absent', timestamp);
  for (const [name, bytes] of headers)
    if (typeof name !== 'string' || (bytes !== null && !Buffer.isBuffer(bytes)))
      throw argumentInvalid('send', `header ${String(name)}`, 'a name and a Buffer or null', bytes);
}

function outputUnknown(topic: string): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_OUTPUT_UNKNOWN',
    `the handler sends to ${topic}, which is not among the outputs of its processor. Add it there, or mend the handler; then retry the parked record.`,
    { facts: { topic } },
  );
}

function argumentInvalid(call: string, what: string, wanted: string, found: unknown): HeadwaterError {
  const shown = typeof found === 'object' && found !== null ? found.constructor.name : String(found);
  return new HeadwaterError(
    'PROCESS_ARGUMENT_INVALID',
    `${call}: ${what} is ${shown} instead of ${wanted}. Mend the handler, then retry the parked record.`,
    { facts: { call } },
  );
}
