import {
  ProcessRunner,
  type Clock,
  type GroupOffsets,
  type Log,
  type LogTransaction,
  type LogWriter,
  type Outcome,
  type OutRecord,
} from '@headwater/core';
import type { MemoryClient, MemoryLog } from '../memory-log/memory-log.js';
import type { Random } from '../virtual-clock/random.js';
import type { MachineClock } from '../virtual-clock/virtual-clock.js';
import { fateOf, type Mischief } from './mischief.js';
import { simulatedProcessor, type Witness } from './processor.js';

/** A planted bug: it stands between the engine and its ports. */
export interface PlantedBug {
  readonly log?: (log: Log) => Log;
  /** Between the input's producer and the log. */
  readonly feeder?: (log: Log) => Log;
  readonly clock?: (clock: Clock) => Clock;
}

export interface InstanceOptions {
  readonly name: string;
  readonly log: MemoryLog;
  readonly machine: MachineClock;
  readonly topics: readonly string[];
  readonly random: Random;
  /** Asked before every request: rates fall to nothing when the faults end. */
  readonly mischief: () => Mischief;
  readonly witness: Witness;
  readonly bug?: PlantedBug;
}

/** One process with a process engine in it. */
export class Instance {
  readonly name: string;
  readonly runner: ProcessRunner;
  readonly #client: MemoryClient;
  #alive = true;

  constructor({ name, log, machine, topics, random, mischief, witness, bug }: InstanceOptions) {
    this.name = name;
    this.#client = log.client({
      clock: machine,
      latencyMs: () => (random.chance(mischief().delay) ? random.below(40) : 0),
      fault: (call) => {
        const fate = fateOf(call, mischief(), random);
        if (fate === undefined) return undefined;
        witness.saw(`${fate.act}${fate.act === 'kill' ? ` ${fate.when}` : ''}: ${call.request}`);
        witness.note(`${name}: ${fate.act} at ${call.request}`);
        if (fate.act !== 'kill') return fate;
        this.kill();
        return fate.when === 'before' ? { act: 'lose-request' } : undefined;
      },
    });
    const { clock } = this.#client;
    const seen = watched(this.#client.log, name, witness);
    this.runner = new ProcessRunner(simulatedProcessor(topics, clock, witness), {
      log: bug?.log?.(seen) ?? seen,
      clock: bug?.clock?.(clock) ?? clock,
      instanceId: name,
      maxBatchRecords: 1 + random.below(20),
      logger: {
        log: () => undefined,
        warn: (line) => witness.note(`${name}: ${line}`),
        error: (line) => witness.wrong(`${name}: ${line}`),
      },
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  pause(): void {
    this.#client.pause();
  }

  resume(): void {
    this.#client.resume();
  }

  /** Nothing of it runs on. */
  kill(): void {
    this.#alive = false;
    this.#client.kill();
  }

  async stop(): Promise<void> {
    this.#alive = false;
    await this.runner.stop();
    await this.#client.log.close();
  }
}

/** Counts and notes how transactions end. */
function watched(log: Log, name: string, witness: Witness): Log {
  const told = (end: Outcome): Outcome => {
    witness.saw(`transaction ${end.outcome}${'fenced' in end ? `, ${end.fenced} fenced` : ''}`);
    if (end.outcome !== 'committed') witness.note(`${name}: transaction ${end.outcome}`);
    return end;
  };
  const writer = (of: LogWriter): LogWriter => ({
    transactionalId: of.transactionalId,
    fence: () => of.fence(),
    begin: (): LogTransaction => {
      const transaction = of.begin();
      return {
        append: (records) => transaction.append(records),
        commit: async (offsets) => told(await transaction.commit(offsets)),
        abort: async (cause) => told(await transaction.abort(cause)),
      };
    },
    transact: async (records: readonly OutRecord[], offsets?: GroupOffsets) =>
      told(await of.transact(records, offsets)),
    close: () => of.close(),
  });
  return { ...log, writer: (options) => writer(log.writer(options)) };
}
