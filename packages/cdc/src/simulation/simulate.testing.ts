import { formatLsn, maxLsn, ZERO_LSN } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import { memoryLog, virtualClock } from '@headwater/testing';
import type { MachineClock, MemoryLog, Random, VirtualClock } from '@headwater/testing';
import { errorCode, errorMessage } from '@headwater/core';
import { differences, TOPICS } from './checks.testing.js';
import { CALM, Instance, POSITION_TOPIC } from './instance.testing.js';
import type { Mischief, PlantedBug, Witness } from './instance.testing.js';
import { SimulatedServer } from './server.testing.js';
import { Workload } from './workload.testing.js';

export interface Simulated {
  readonly seed: number;
  /** What the run was not allowed to do. Empty: every transaction once and in order. */
  readonly wrong: readonly string[];
  /** How often each rare thing happened. */
  readonly seen: ReadonlyMap<string, number>;
  readonly trace: readonly string[];
}

const PATIENCE_MS = 120_000;
/** Everything that was late has happened by then. */
const SETTLE_MS = 12_000;
/** Of a capture that must halt: slot and position do not fit any more. */
const TAMPERED = new Set(['CDC_SLOT_AHEAD', 'CDC_SLOT_MISSING']);

/**
 * Runs captures in two processes against one simulated database and a log in memory, in virtual time: lost calls and answers, kills
 * before and after each, pauses, cut and silent connections, late markers, an absent log and slots that somebody changes, all chosen by the seed.
 * Then the faults end, and what is in the log is compared with what was committed.
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
  readonly #random: Random;
  readonly #log: MemoryLog;
  readonly #server: SimulatedServer;
  readonly #machines: MachineClock[];
  readonly #instances: (Instance | undefined)[];
  readonly #snapshot: 'initial' | 'never' | 'when-needed';
  readonly #capture: ConstructorParameters<typeof Instance>[0]['capture'];
  #mischief: Mischief;
  #logIsDown = false;
  #tampered = false;
  #durable: Lsn = ZERO_LSN;

  constructor(
    private readonly clock: VirtualClock,
    readonly bug: PlantedBug | undefined,
  ) {
    this.#random = clock.random;
    const random = clock.random.fork();
    this.#mischief = mischief(random);
    this.#snapshot = random.pick(['never', 'initial', 'initial', 'when-needed']);
    this.#capture = {
      snapshot: this.#snapshot,
      maxBatchBytes: random.pick([1_000, 8_000, 4_000_000]),
      maxBatchRows: random.pick([5, 40, 10_000]),
      snapshotChunkRows: random.pick([2, 100]),
      snapshotWorkers: random.pick([1, 2, 3]),
    };
    this.#machines = [clock.machine(), clock.machine()];
    this.#instances = [undefined, undefined];
    const ofLog = clock.random.fork();
    this.#log = memoryLog({
      clock,
      markerDelayMs: () => (ofLog.chance(this.#mischief.lateMarkers) ? ofLog.below(1_500) : 0),
    });
    const ofNet = clock.random.fork();
    this.#server = new SimulatedServer(clock, clock.random.fork(), {
      saw: (what) => this.saw(what),
      flushed: (flush) => this.#flushed(flush),
      keepalivesFirst: bug?.keepalivesFirst ?? false,
      fate: () => {
        if (!ofNet.chance(this.#mischief.cut)) return 'deliver';
        const fate = ofNet.pick(['cut', 'silent'] as const);
        this.saw(`connection ${fate}`);
        return fate;
      },
    });
  }

  saw(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  note(what: string): void {
    this.trace.push(`${this.clock.elapsed()} ${what}`);
  }

  wrong(what: string): void {
    this.wrongs.push(what);
    this.note(`WRONG: ${what}`);
  }

  durable(endLsn: Lsn): void {
    this.#durable = maxLsn(this.#durable, endLsn);
  }

  async play(): Promise<void> {
    const topics = [...TOPICS.map((topic) => ({ topic, partitions: 2 })), { topic: POSITION_TOPIC, partitions: 1 }];
    await this.#log.admin.ensureTopics(topics.map((of) => ({ ...of, cleanupPolicy: 'compact' as const })));
    const work = new Workload(this.#random.fork());
    // Rows that are there before the first capture.
    for (let n = 0; n < 3; n++) this.#server.database.commit([work.transaction()]);
    this.#start(0);
    if (this.#random.chance(0.7)) this.#start(1);
    const working = this.#work(work, 20 + this.#random.below(60));
    await this.#disturb();
    await working;
    this.note('the faults end');
    this.#mischief = CALM;
    this.#logIsDown = false;
    await this.#heal();
    // One more, that everything before it must have passed.
    this.#server.database.commit([work.transaction()]);
    await this.#drained();
    for (const what of await this.#differences()) this.wrong(what);
    for (const instance of this.#instances) await instance?.stop();
    await this.#log.close();
  }

  /** C40: nothing is acknowledged that is not in the log. */
  #flushed(flush: Lsn): void {
    const slot = this.#server.slot;
    if (flush > this.#durable && slot !== undefined && flush > slot.confirmed)
      this.wrong(`acknowledged ${formatLsn(flush)}, durable is ${formatLsn(this.#durable)}`);
  }

  async #work(work: Workload, deeds: number): Promise<void> {
    for (let n = 0; n < deeds; n++) {
      const deed = work.deed();
      const { database } = this.#server;
      if (deed.do === 'commit') database.commit(deed.transactions, deed.unseenMs);
      else if (deed.do === 'emit') database.emit(deed.prefix, deed.key, deed.value);
      else database.write(deed.bytes);
      await this.clock.wait(deed.pauseMs);
    }
  }

  #start(machine: number): void {
    const name = `process ${machine}`;
    this.note(`${name} starts`);
    this.#instances[machine] = new Instance({
      name,
      log: this.#log,
      server: this.#server,
      machine: this.#machines[machine]!,
      random: this.#random.fork(),
      mischief: () => this.#mischief,
      logIsDown: () => this.#logIsDown,
      witness: this,
      capture: this.#capture,
      ...(this.bug && { bug: this.bug }),
    });
  }

  async #disturb(): Promise<void> {
    const random = this.#random.fork();
    const times = 2 + random.below(8);
    for (let n = 0; n < times; n++) {
      await this.clock.wait(random.pick([1, 20, 100, 700, 3_000]));
      const machine = random.below(this.#machines.length);
      const instance = this.#instances[machine];
      if (instance === undefined || !instance.alive) this.#start(machine);
      else this.#strike(instance, machine, random);
    }
  }

  #strike(instance: Instance, machine: number, random: Random): void {
    const { name } = instance;
    const dice = random.below(100);
    if (dice < 30) {
      this.#happens('killed', name);
      instance.kill(random.chance(0.3));
    } else if (dice < 55) {
      const forMs = random.pick([50, 1_500, 7_500, 20_000]);
      this.#happens(forMs > 6_000 ? 'zombie' : 'paused', name);
      instance.pause();
      void this.clock.wait(forMs).then(() => instance.resume());
    } else if (dice < 70) {
      this.#happens('stopped', name);
      this.#instances[machine] = undefined;
      void instance.stop();
    } else if (dice < 78) {
      this.#happens('log gone', name);
      this.#logIsDown = true;
      void this.clock.wait(random.pick([300, 5_000])).then(() => (this.#logIsDown = false));
    } else if (dice < 85) {
      this.#happens('walsender terminated', name);
      this.#server.slot?.walsender?.kill();
    } else this.#tamper(random);
  }

  /** Somebody else changes the slot: capture must refuse it, or begin anew when it may. */
  #tamper(random: Random): void {
    const { slot } = this.#server;
    if (slot === undefined || slot.walsender !== undefined) return;
    const how = random.pick(['advanced', 'dropped', 'made again']);
    if (how === 'advanced' && !this.#server.advanceSlot()) return;
    if (how !== 'advanced') this.#server.dropSlot(slot.name);
    if (how === 'made again') this.#server.createSlot(slot.name);
    this.#tampered = true;
    this.#happens(`slot ${how}`, 'somebody');
  }

  #happens(what: string, name: string): void {
    this.saw(what);
    this.note(`${name}: ${what}`);
  }

  async #heal(): Promise<void> {
    await this.clock.wait(SETTLE_MS);
    for (const [machine, instance] of this.#instances.entries()) {
      instance?.resume();
      if (instance === undefined || !instance.alive) this.#start(machine);
    }
  }

  /** Until one streams and has published all, or all have refused to. */
  async #drained(): Promise<void> {
    const endsAt = this.clock.elapsed() + PATIENCE_MS;
    const { database } = this.#server;
    while (this.clock.elapsed() < endsAt) {
      await this.clock.wait(500);
      const instances = this.#instances.filter((of) => of !== undefined);
      if (instances.every(({ halted }) => halted !== undefined)) break;
      if (this.#durable >= database.wal.at(-1)!.end && (this.#server.slot?.confirmed ?? 0n) >= this.#durable) break;
    }
    await this.clock.wait(SETTLE_MS);
  }

  async #differences(): Promise<string[]> {
    const halts = this.#instances.flatMap((of) => (of?.halted === undefined ? [] : [of.halted]));
    const refused = halts.filter((error) => this.#tampered && TAMPERED.has(errorCode(error) ?? ''));
    const wrong = halts.filter((error) => !refused.includes(error)).map((error) => `halted: ${errorMessage(error)}`);
    if (refused.length > 0) {
      this.saw('refused a slot that was changed');
      if (this.#snapshot === 'when-needed')
        wrong.push(`refused although a snapshot may be taken: ${errorMessage(refused[0])}`);
      return wrong;
    }
    if (halts.length > 0) return wrong;
    if (this.#durable < this.#server.database.wal.at(-1)!.end)
      wrong.push(`not drained: ${this.#instances.map((of) => JSON.stringify(of?.status)).join(' ')}`);
    const from = this.#server.slotsMadeAt.at(-1) ?? ZERO_LSN;
    const exact = !this.#tampered;
    if (!exact) this.saw('went on after the slot was changed');
    const wanted = { from, exact, fold: this.#snapshot !== 'never' };
    return [...wrong, ...(await differences(this.#log, this.#server.database, wanted))];
  }
}

function mischief(random: Random): Mischief {
  return {
    source: random.pick([0, 0.01, 0.05]),
    log: random.pick([0, 0.01, 0.05]),
    kill: random.pick([0, 0.003, 0.01]),
    cut: random.pick([0, 0.01, 0.05]),
    lateMarkers: random.pick([0, 0.3, 0.7]),
    delay: random.pick([0, 0.1, 0.5]),
  };
}
