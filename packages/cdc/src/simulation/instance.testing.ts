import type {
  Log,
  LogInput,
  LogReader,
  LogRecord,
  LogTransaction,
  LogWriter,
  Outcome,
  OutRecord,
} from '@headwater/core';
import { errorCode, errorMessage, HeadwaterError, recordsOf } from '@headwater/core';
import type { LogCall, MachineClock, MemoryClient, MemoryLog, Random } from '@headwater/testing';
import { Capture } from '../capture.js';
import type { CaptureOptions } from '../capture.options.js';
import { resolveOptions } from '../capture.options.js';
import type { Lsn } from '../lsn.js';
import { ZERO_LSN } from '../lsn.js';
import { parsePosition } from '../position.js';
import type { Source } from '../source.js';
import { TABLES } from './database.testing.js';
import type { SimulatedServer } from './server.testing.js';
import { simulatedSource } from './simulated-source.testing.js';
import type { SimulatedSource, SimulatedSourceOptions, SourceFate } from './simulated-source.testing.js';

export const NAME = 'bank';
export const POSITION_TOPIC = `headwater.cdc.${NAME}.position`;

/** What goes wrong, how often. Drawn anew for every seed. */
export interface Mischief {
  readonly source: number;
  readonly log: number;
  readonly kill: number;
  readonly cut: number;
  readonly lateMarkers: number;
  readonly delay: number;
}

export const CALM: Mischief = { source: 0, log: 0, kill: 0, cut: 0, lateMarkers: 0, delay: 0 };

export interface Witness {
  saw(what: string): void;
  note(what: string): void;
  wrong(what: string): void;
  /** A position that this process knows to be committed. */
  durable(endLsn: Lsn): void;
}

/** A planted bug: it stands between capture and its ports. */
export interface PlantedBug {
  readonly log?: (log: Log, instance: string) => Log;
  readonly source?: (source: Source) => Source;
  /** What is told to the server instead. */
  readonly status?: (flush: Lsn, received: Lsn) => Lsn;
  /** Streams from where this process received last. */
  readonly resumesFromReceived?: true;
  /** Keepalives inside a transaction are taken as if they had come before it. */
  readonly keepalivesFirst?: true;
}

export interface InstanceOptions {
  readonly name: string;
  readonly log: MemoryLog;
  readonly server: SimulatedServer;
  readonly machine: MachineClock;
  readonly random: Random;
  readonly mischief: () => Mischief;
  readonly logIsDown: () => boolean;
  readonly witness: Witness;
  readonly capture: Pick<
    CaptureOptions,
    'snapshot' | 'maxBatchBytes' | 'maxBatchRows' | 'snapshotChunkRows' | 'snapshotWorkers'
  >;
  readonly bug?: PlantedBug;
}

const SELDOM = new Set([
  'lock',
  'publication',
  'create-slot',
  'drop-slot',
  'stream',
  'look',
  'session',
  'emit',
  'shape',
  'read',
  'writers',
]);
const TOLD: readonly (readonly [string, RegExp])[] = [
  ['waited for the slot', /is held by pid|is active for PID/],
  ['waited for the lock', /is held by another process that prepares it/],
  ['snapshot because of a refusal', /new snapshot because of/],
  ['streamed', /streaming from/],
  ['slot kept while the log failed', /The slot is kept meanwhile/],
];

/** One process with a capture in it; a capture that was fenced stands by again, as the engine has it. */
export class Instance {
  readonly name: string;
  readonly #options: InstanceOptions;
  readonly #client: MemoryClient;
  readonly #sources: SimulatedSource[] = [];
  #capture: Capture;
  #alive = true;
  #stopping = false;
  /** Why it halted for good. */
  halted: unknown;

  constructor(options: InstanceOptions) {
    const { name, log, machine, random, mischief } = options;
    this.name = name;
    this.#options = options;
    this.#client = log.client({
      clock: machine,
      latencyMs: () => (random.chance(mischief().delay) ? random.below(30) : 0),
      fault: (call) => this.#logFault(call),
    });
    this.#capture = this.#open();
  }

  get alive(): boolean {
    return this.#alive;
  }

  get status(): ReturnType<Capture['status']> {
    return this.#capture.status();
  }

  pause(): void {
    this.#client.pause();
  }

  resume(): void {
    this.#client.resume();
  }

  /** SIGKILL. `lingers`: the network does not tell the server, which finds out for itself. */
  kill(lingers: boolean): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#client.kill();
    if (!lingers) for (const source of this.#sources) source.sever();
    else void this.#options.machine.wait(8_000).then(() => this.#sources.forEach((source) => source.sever()));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#capture.stop();
    this.#alive = false;
    await this.#client.log.close();
  }

  #open(): Capture {
    const { server, random, witness, bug, capture } = this.#options;
    const { clock } = this.#client;
    const seen = watched(this.#client.log, this.name, witness);
    const options: CaptureOptions = {
      name: NAME,
      connectionString: 'simulated',
      log: bug?.log?.(seen, this.name) ?? seen,
      tables: TABLES.map(({ name }) => ({ table: `public.${name}`, topic: name })),
      outbox: true,
      ...capture,
      inboundTimeoutMs: 9_000,
      clock,
      onError: (error) => witness.note(`${this.name}: ${errorMessage(error)}`),
      logger: { info: (line) => this.#told(line), warn: (line) => this.#told(line) },
    };
    let received = ZERO_LSN;
    const ports: SimulatedSourceOptions = {
      server,
      clock,
      random,
      options: resolveOptions(options),
      fate: (call) => this.#sourceFate(call),
      kill: () => this.kill(random.chance(0.3)),
      onStatus: bug?.status ?? ((flush) => flush),
      startLsn: () => (bug?.resumesFromReceived ? received : ZERO_LSN),
      received: (lsn) => (received = lsn),
    };
    const source = simulatedSource(ports);
    this.#sources.push(source);
    const started = new Capture(options, {
      source: bug?.source?.(source) ?? source,
      random: () => random.fraction(),
    });
    void started.start().catch(() => undefined);
    void this.#follow(started);
    return started;
  }

  #told(line: string): void {
    const { witness } = this.#options;
    for (const [what, found] of TOLD) if (found.test(line)) witness.saw(what);
    witness.note(`${this.name}: ${line}`);
  }

  async #follow(capture: Capture): Promise<void> {
    const { witness } = this.#options;
    try {
      await capture.finished;
    } catch (error) {
      witness.saw(`halted: ${errorCode(error)}`);
      if (errorCode(error) !== 'CDC_FENCED') {
        this.halted = error;
        return;
      }
      await this.#client.clock.wait(1_000);
      if (this.#stopping || !this.#alive) return;
      this.#capture = this.#open();
    }
  }

  #sourceFate(call: string): SourceFate {
    const { mischief, random, witness } = this.#options;
    const { source, kill } = mischief();
    // What is asked once in a life is struck as often as what is asked all the time.
    const often = SELDOM.has(call) ? 8 : 1;
    if (random.chance(kill * often)) {
      const when = random.pick(['before', 'after'] as const);
      witness.saw(`kill ${when}: ${call}`);
      witness.note(`${this.name}: killed ${when} ${call}`);
      return { act: 'kill', when };
    }
    if (!random.chance(source * Math.min(often, 2))) return undefined;
    const act = random.pick(['lose-request', 'lose-answer'] as const);
    witness.saw(`${act}: ${call}`);
    return { act, when: 'before' };
  }

  #logFault(call: LogCall): ReturnType<NonNullable<Parameters<MemoryLog['client']>[0]>['fault'] & {}> {
    const { mischief, random, witness, logIsDown } = this.#options;
    const { log, kill } = mischief();
    const what = call.request;
    if (logIsDown()) {
      witness.saw('log unavailable');
      return { act: 'refuse', error: new HeadwaterError('KAFKA_UNREACHABLE', 'no answer', { retryable: true }) };
    }
    if (random.chance(kill * 2)) {
      const when = random.pick(['before', 'after'] as const);
      witness.saw(`kill ${when}: ${what}`);
      witness.note(`${this.name}: killed ${when} ${what}`);
      this.kill(random.chance(0.3));
      return when === 'before' ? { act: 'lose-request' } : undefined;
    }
    if (!random.chance(what === 'poll' ? log / 3 : log)) return undefined;
    const act = random.pick(['lose-request', 'lose-answer', 'late-request'] as const);
    witness.saw(`${act}: ${what}`);
    witness.note(`${this.name}: ${act} at ${what}`);
    return act === 'late-request' ? { act, lateMs: random.pick([20, 900, 1_500, 4_000]) } : { act };
  }
}

/** Counts how transactions end, and learns which positions are committed: by the answer, or by reading them. */
function watched(log: Log, name: string, witness: Witness): Log {
  const told = (end: Outcome): Outcome => {
    witness.saw(`transaction ${end.outcome}${'fenced' in end && end.fenced ? `, ${end.fenced} fenced` : ''}`);
    if (end.outcome !== 'committed') witness.note(`${name}: transaction ${end.outcome}`);
    return end;
  };
  const committed = (end: Outcome, inputs: readonly LogInput[]): Outcome => {
    if (end.outcome === 'committed') for (const endLsn of positionsIn(inputs)) witness.durable(endLsn);
    return told(end);
  };
  const writer = (of: LogWriter): LogWriter => ({
    transactionalId: of.transactionalId,
    fence: () => of.fence(),
    begin: (): LogTransaction => {
      witness.saw('source transaction in parts');
      const transaction = of.begin();
      const all: LogInput[] = [];
      return {
        append: (records) => {
          all.push(...positionRecords(records));
          return transaction.append(records);
        },
        commit: async (offsets) => committed(await transaction.commit(offsets), all),
        abort: async (cause) => told(await transaction.abort(cause)),
      };
    },
    transact: async (records, offsets) => {
      const all = positionRecords(records);
      return committed(await of.transact(records, offsets), all);
    },
    close: () => of.close(),
  });
  const reader = (of: LogReader): LogReader => ({
    seek: (topic, partition, offset) => of.seek(topic, partition, offset),
    drop: (topic, partition) => of.drop(topic, partition),
    pause: (topic, partition) => of.pause(topic, partition),
    resume: (topic, partition) => of.resume(topic, partition),
    poll: async (options) => {
      const batches = await of.poll(options);
      for (const batch of batches) for (const endLsn of positionsIn(batch.records)) witness.durable(endLsn);
      return batches;
    },
    close: () => of.close(),
  });
  return { ...log, writer: (options) => writer(log.writer(options)), reader: () => reader(log.reader()) };
}

function positionRecords(inputs: readonly LogInput[]): OutRecord[] {
  return inputs.filter(({ topic }) => topic === POSITION_TOPIC).flatMap(recordsOf);
}

function positionsIn(inputs: readonly (LogInput | LogRecord)[]): Lsn[] {
  const records = inputs.filter(({ topic }) => topic === POSITION_TOPIC) as readonly OutRecord[];
  return records.flatMap(({ key, value }) =>
    key?.toString() === NAME && value !== null ? [parsePosition(value).endLsn] : [],
  );
}
