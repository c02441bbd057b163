import { parkedTopicOf, stateTopicOf, type Log } from '@headwater/core';
import { memoryLog, type MemoryLog } from '../memory-log/memory-log.js';
import type { Random } from '../virtual-clock/random.js';
import { virtualClock, type MachineClock, type VirtualClock } from '../virtual-clock/virtual-clock.js';
import { differences, quiet } from './checks.js';
import { Instance, type PlantedBug } from './instance.js';
import { LATEST_MS, mischief, type Mischief } from './mischief.js';
import { MAX_OUTPUT_BYTES, OUTPUT, PROCESSOR, type Witness } from './processor.js';
import { LAST_TIMER_MS, workload, type Workload } from './workload.js';

export interface Simulated {
  readonly seed: number;
  /** What the run was not allowed to do. Empty: exactly f(input). */
  readonly wrong: readonly string[];
  /** How often each rare thing happened. */
  readonly seen: ReadonlyMap<string, number>;
  readonly trace: readonly string[];
}

const CALM: Mischief = { loss: 0, kill: 0, delay: 0, lateMarkers: 0 };
/** What would be done twice is done by then. */
const SETTLE_MS = LATEST_MS + 500;
const PATIENCE_MS = 300_000;

/**
 * Runs the process engine in several instances on a log in memory, in virtual time: under crashes, pauses, lost and late requests,
 * rebalances, jumps of the clock and compaction, all chosen by the seed. Then the faults end, and what is there is compared with f(input).
 */
export async function simulate(seed: number, bug?: () => PlantedBug): Promise<Simulated> {
  const clock = virtualClock(seed);
  const world = new World(clock, bug?.());
  try {
    await clock.run(() => world.play(), { limitMs: 1_800_000 });
  } catch (error) {
    world.wrong(error instanceof Error ? error.message : String(error));
  }
  return { seed, wrong: world.wrongs, seen: world.counts, trace: world.trace };
}

class World implements Witness {
  readonly wrongs: string[] = [];
  readonly counts = new Map<string, number>();
  readonly trace: string[] = [];
  readonly #clock: VirtualClock;
  readonly #random: Random;
  readonly #bug: PlantedBug | undefined;
  readonly #log: MemoryLog;
  readonly #startsAt: number;
  readonly #work: Workload;
  readonly #machines: MachineClock[];
  readonly #instances: (Instance | undefined)[];
  #mischief: Mischief;
  readonly #stalled = new Set<string>();
  #named = 0;

  constructor(clock: VirtualClock, bug: PlantedBug | undefined) {
    this.#clock = clock;
    this.#random = clock.random;
    this.#bug = bug;
    const random = clock.random.fork();
    this.#mischief = mischief(random);
    this.#startsAt = clock.now();
    this.#work = workload(random, this.#startsAt);
    this.#machines = Array.from({ length: 2 + random.below(2) }, () => clock.machine());
    this.#instances = this.#machines.map(() => undefined);
    const ofLog = clock.random.fork();
    this.#log = memoryLog({
      clock,
      maxPollRecords: () => 1 + ofLog.below(12),
      markerDelayMs: () => (ofLog.chance(this.#mischief.lateMarkers) ? ofLog.below(2_500) : 0),
    });
  }

  saw(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  wrong(what: string): void {
    this.wrongs.push(what);
    this.note(`WRONG: ${what}`);
  }

  note(what: string): void {
    this.trace.push(`${this.#clock.elapsed()} ${what}`);
  }

  /** True once per subject: what outlasts a time-out must not do so again and again, or nobody would ever get past it. */
  stalls(subject: string): boolean {
    if (this.#stalled.has(subject)) return false;
    this.#stalled.add(subject);
    return true;
  }

  async play(): Promise<void> {
    await this.#createTopics();
    for (const machine of this.#machines.keys()) this.#start(machine);
    const feeding = this.#feed();
    await this.#disturb();
    await feeding;
    this.note('the faults end');
    this.#mischief = CALM;
    await this.#heal();
    const running = this.#instances.filter((of) => of !== undefined);
    const view = {
      log: this.#log as Log,
      topics: this.#work.topics,
      timersUntil: this.#startsAt + LAST_TIMER_MS,
      runners: running.map(({ runner }) => runner),
    };
    const endsAt = this.#clock.elapsed() + PATIENCE_MS;
    while (!(await quiet(view)) && this.#clock.elapsed() < endsAt) await this.#clock.wait(1_000);
    await this.#clock.wait(SETTLE_MS);
    for (const what of await differences(view)) this.wrong(what);
    await Promise.all(running.map((instance) => instance.stop()));
    await this.#log.close();
  }

  #createTopics(): Promise<void> {
    const { partitions, topics } = this.#work;
    const of = (topic: string, cleanupPolicy: 'delete' | 'compact') => ({ topic, partitions, cleanupPolicy });
    return this.#log.admin.ensureTopics([
      ...topics.map((topic) => of(topic, 'delete')),
      { ...of(OUTPUT, 'delete'), config: { 'max.message.bytes': String(MAX_OUTPUT_BYTES) } },
      of(parkedTopicOf(PROCESSOR), 'delete'),
      of(stateTopicOf(PROCESSOR), 'compact'),
    ]);
  }

  #start(machine: number): void {
    // Every other start comes back under its old name, and fences what it left behind.
    const name = this.#random.chance(0.5) ? `machine-${machine}` : `machine-${machine}-${++this.#named}`;
    this.note(`${name} starts`);
    this.#instances[machine] = new Instance({
      name,
      log: this.#log,
      machine: this.#machines[machine]!,
      topics: this.#work.topics,
      random: this.#random.fork(),
      mischief: () => this.#mischief,
      witness: this,
      ...(this.#bug && { bug: this.#bug }),
    });
  }

  async #feed(): Promise<void> {
    const { log } = this.#log.client();
    const feeder = (this.#bug?.feeder?.(log) ?? log).writer({
      transactionalId: 'feeder',
      transactionTimeoutMs: 60_000,
    });
    await feeder.fence();
    for (const { records, ends, pauseMs } of this.#work.transactions) {
      const transaction = feeder.begin();
      for (const { topic, key, deed } of records) {
        await transaction.append([{ topic, key: Buffer.from(key), value: Buffer.from(JSON.stringify(deed)) }]);
      }
      this.saw(`input ${ends}`);
      await (ends === 'commit' ? transaction.commit() : transaction.abort());
      await this.#clock.wait(pauseMs);
    }
    await feeder.close();
  }

  /** Something happens to some instance, again and again. */
  async #disturb(): Promise<void> {
    const random = this.#random.fork();
    const times = 3 + random.below(8);
    for (let n = 0; n < times; n++) {
      await this.#clock.wait(random.pick([1, 20, 100, 700, 3_000]));
      const machine = random.below(this.#machines.length);
      const instance = this.#instances[machine];
      if (instance === undefined || !instance.alive) {
        this.#start(machine);
        continue;
      }
      await this.#strike(instance, machine, random);
    }
  }

  async #strike(instance: Instance, machine: number, random: Random): Promise<void> {
    const { name } = instance;
    const dice = random.below(100);
    if (dice < 25) {
      this.#happens('killed', name);
      instance.kill();
    } else if (dice < 50) {
      const forMs = random.pick([50, 1_500, 6_500, 7_500, 12_000]);
      this.#happens(forMs > 6_000 ? 'paused past its session' : 'paused', name);
      instance.pause();
      void this.#clock.wait(forMs).then(() => instance.resume());
    } else if (dice < 70) {
      this.#happens('stopped', name);
      this.#instances[machine] = undefined;
      void instance.stop();
    } else if (dice < 85) {
      const ms = random.pick([-3_600_000, -1_000, 1_000, 3_600_000]);
      this.#happens(ms > 0 ? 'clock set forward' : 'clock set back', name);
      this.#machines[machine]!.jump(ms);
    } else {
      this.#happens('state topic compacted', name);
      this.#log.compact(stateTopicOf(PROCESSOR));
    }
  }

  #happens(what: string, name: string): void {
    this.saw(what);
    this.note(`${name}: ${what}`);
  }

  /** Dead instances are started again. */
  async #heal(): Promise<void> {
    for (const [machine, instance] of this.#instances.entries()) {
      instance?.resume();
      this.#machines[machine]!.mend();
      if (instance === undefined || !instance.alive) this.#start(machine);
    }
  }
}
