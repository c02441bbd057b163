import { describe, expect, it } from '@jest/globals';
import { seededRandom, type Random } from '@headwater/testing';
import { handOver, type HandOver } from './co-partitions.js';
import type { Share, Tenure } from './log.js';
import { HeldTenure, wholly } from './tenure.js';

const TOPICS = ['a', 'b'];
const identity = (memberId: string, generation: number) => ({ groupId: 'group', memberId, generation });
/** Milliseconds, set by the tests. */
const clock = { now: 0 };
const tenureOf = (numbers: readonly number[], generation = 1) => {
  const changes: number[] = [];
  const tenure = new HeldTenure(
    identity('m', generation),
    TOPICS,
    () => clock.now,
    () => changes.push(changes.length),
  );
  accept(tenure, numbers);
  for (const share of tenure.shares) share.take();
  return { tenure, changes };
};
const accept = (tenure: HeldTenure, given: readonly number[], generation = tenure.generation) =>
  tenure.accept(generation, { given, asked: [], coming: [] });
const numbers = (tenure: Tenure) => tenure.shares.map(({ partition }) => partition);
const returning = (tenure: Tenure) => tenure.shares.filter(({ signal }) => signal.aborted).map((of) => of.partition);

describe('tenure', () => {
  it('asks back what a generation does not give, and leaves the rest alone', async () => {
    const { tenure, changes } = tenureOf([0, 1, 2]);
    expect(tenure.shares[1]!.partitions).toEqual(TOPICS.map((topic) => ({ topic, partition: 1 })));
    const [first, second] = tenure.shares as [Share, Share];
    tenure.join();
    accept(tenure, [1, 2, 3], 2);
    expect([numbers(tenure), returning(tenure)]).toEqual([[0, 1, 2, 3], [0]]);
    expect(tenure.shares[1]).toBe(second);
    // Held until it is given back, whatever generation it is.
    expect([tenure.claims, tenure.owing]).toEqual([[0, 1, 2, 3], false]);
    first.release();
    first.release();
    expect([tenure.claims, tenure.owing, changes.length]).toEqual([[1, 2, 3], true, 1]);
    tenure.join();
    expect(tenure.owing).toBe(false);
  });

  it('refuses what nobody asked for', () => {
    const { tenure } = tenureOf([0]);
    expect(() => tenure.shares[0]!.release()).toThrow(expect.objectContaining({ code: 'LOG_SHARE_NOT_ASKED' }));
    expect(numbers(tenure)).toEqual([0]);
  });

  it('gives again as another share what a later generation gives before it was released', () => {
    const { tenure } = tenureOf([0, 1]);
    const [share] = tenure.shares;
    accept(tenure, [1]);
    accept(tenure, [0, 1]);
    expect(returning(tenure)).toEqual([0]);
    share!.release();
    expect([numbers(tenure), returning(tenure), tenure.owing]).toEqual([[0, 1], [], false]);
    expect(tenure.shares[0]).not.toBe(share);
  });

  it('owes nothing for what it released during a join that gives it back', () => {
    const { tenure } = tenureOf([0, 1]);
    accept(tenure, [1]);
    const [share] = tenure.shares;
    tenure.join();
    share!.release();
    expect(tenure.owing).toBe(true);
    accept(tenure, [0, 1]);
    expect([tenure.owing, returning(tenure)]).toEqual([false, []]);
  });

  it('joins again for what it is asked for and does not hold: a former process of this static member has given it back', () => {
    const { tenure } = tenureOf([]);
    tenure.accept(1, { given: [0], asked: [1, 2], coming: [] });
    expect([tenure.claims, tenure.owing]).toEqual([[0], true]);
    tenure.join();
    expect(tenure.owing).toBe(false);
  });

  it('counts the time to give back from when each was asked for', () => {
    clock.now = 1_000;
    const { tenure } = tenureOf([0, 1, 2]);
    expect(tenure.leftMs(500)).toBe(Infinity);
    accept(tenure, [1, 2]);
    clock.now = 1_300;
    accept(tenure, [2]);
    expect(tenure.leftMs(500)).toBe(200);
    clock.now = 1_400;
    tenure.shares[0]!.release();
    expect([tenure.returning, tenure.leftMs(500)]).toEqual([[1], 400]);
    tenure.end();
    expect(tenure.leftMs(500)).toBe(Infinity);
  });

  it('tells of what is coming, and when less is', async () => {
    const { tenure } = tenureOf([]);
    tenure.accept(1, { given: [], asked: [], coming: [3] });
    expect(tenure.coming).toEqual([3]);
    const less = tenure.next();
    tenure.accept(1, { given: [], asked: [], coming: [] });
    await less;
    expect(tenure.coming).toEqual([]);
  });

  it('stays where it ended', () => {
    const { tenure } = tenureOf([0], 3);
    tenure.end();
    accept(tenure, [1], 4);
    expect(tenure.membership.generation).toBe(3);
  });

  it('releases by itself what is asked for while nobody works', () => {
    const { tenure, changes } = tenureOf([0, 1, 2]);
    accept(tenure, [1, 2]);
    tenure.rest();
    expect([numbers(tenure), changes.length]).toEqual([[1, 2], 1]);
    accept(tenure, [2]);
    expect([numbers(tenure), changes.length]).toEqual([[2], 2]);
  });

  it('tells at its end everybody who waits', async () => {
    const { tenure, changes } = tenureOf([0]);
    const [share] = tenure.shares;
    tenure.join();
    const waiting = Promise.all([tenure.next(), tenure.membership.renewed!(1)]);
    tenure.end();
    expect(await waiting).toEqual([undefined, false]);
    expect([tenure.signal.aborted, share!.signal.aborted, changes.length]).toEqual([true, true, 1]);
    share!.release();
    accept(tenure, [4]);
    expect([numbers(tenure), tenure.returning]).toEqual([[0], []]);
    await tenure.next();
  });

  it('has offsets that were refused wait for the generation that is being joined, and for nothing else', async () => {
    const { tenure } = tenureOf([0], 4);
    const { membership } = tenure;
    expect(await membership.renewed!(4)).toBe(false);
    tenure.join();
    const renewed = membership.renewed!(4);
    accept(tenure, [0], 5);
    expect([await renewed, membership.generation]).toEqual([true, 5]);
    // Refused late, when it is in the next one already.
    expect(await membership.renewed!(4)).toBe(true);
  });

  it('works wholly anew when something is given or asked back, and commits nothing under what is over', async () => {
    const { tenure } = tenureOf([0, 1]);
    const seen: {
      readonly had: readonly number[];
      readonly generation: () => number;
      renewed: () => Promise<boolean>;
    }[] = [];
    const working = wholly(async ({ partitions, signal, membership }) => {
      const had = partitions.filter(({ topic }) => topic === 'b').map(({ partition }) => partition);
      const renewed = () => membership.renewed!(membership.generation - 1);
      seen.push({ had, generation: () => membership.generation, renewed });
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    })(tenure);
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    // The next generation leaves it as it is.
    accept(tenure, [0, 1], 2);
    await turn();
    expect(seen.map(({ had }) => had)).toEqual([[0, 1]]);
    expect([seen[0]!.generation(), await seen[0]!.renewed()]).toEqual([2, true]);
    accept(tenure, [1]);
    await turn();
    accept(tenure, [1, 2], 3);
    await turn();
    expect(seen.map(({ had }) => had)).toEqual([[0, 1], [1], [1, 2]]);
    expect(await Promise.all(seen.map(async (of) => [of.generation(), await of.renewed()]))).toEqual([
      [1, false],
      [2, false],
      [3, true],
    ]);
    tenure.end();
    await working;
  });

  it('S64 S75 never has two owners of a partition, and one each in the end, over random histories', () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
    const random = seededRandom(seed);
    for (let history = 0; history < 300; history++) {
      const group = new Group(1 + random.below(12), random);
      for (let step = 0; step < 150; step++) {
        group.step();
        expect({ seed, history, step, doubled: group.doubled() }).toMatchObject({ doubled: [] });
      }
      expect({ seed, history, sizes: group.settle() }).toEqual({ seed, history, sizes: group.fairSizes() });
    }
  });
});

/** A group of members in one of all the orders in which its messages may come. */
class Group {
  readonly #members = new Map<string, { readonly tenure: HeldTenure; claims?: readonly number[]; given?: HandOver }>();
  readonly #count: number;
  readonly #random: Random;
  #generation = 1;
  #preparing = false;
  #ids = 0;

  constructor(count: number, random: Random) {
    this.#count = count;
    this.#random = random;
    this.#join();
  }

  step(): void {
    const dice = this.#random.fraction();
    if (dice < 0.03) this.#join();
    else if (dice < 0.05 && this.#members.size > 1) this.#leave();
    else this.#go();
  }

  /** Partitions that two members of the present generation hold. */
  doubled(): number[] {
    const held = [...this.#members.values()].flatMap(({ tenure }) => tenure.claims);
    return held.filter((n, i) => held.indexOf(n) !== i);
  }

  settle(): number[] {
    for (let step = 0; step < 5_000; step++) this.#go();
    expect([...this.#members.values()].flatMap(({ tenure }) => tenure.claims).sort((a, b) => a - b)).toEqual(
      Array.from({ length: this.#count }, (_, n) => n),
    );
    return [...this.#members.values()].map(({ tenure }) => tenure.claims.length).sort((a, b) => a - b);
  }

  fairSizes(): number[] {
    const size = this.#members.size;
    return Array.from({ length: size }, (_, i) => Math.floor((this.#count + i) / size)).sort((a, b) => a - b);
  }

  /** Something that any member, or the group, may do next. */
  #go(): void {
    const members = [...this.#members.values()];
    const member = this.#random.pick(members);
    const { tenure } = member;
    const asked = tenure.shares.find(({ signal }) => signal.aborted);
    if (asked !== undefined && this.#random.chance(0.5)) asked.release();
    else if (member.given !== undefined) {
      tenure.accept(this.#generation, member.given);
      for (const share of tenure.shares) if (this.#random.chance(0.8)) share.take();
      delete member.given;
    } else if (member.claims === undefined && (this.#preparing || tenure.owing)) {
      tenure.join();
      member.claims = tenure.claims;
      this.#preparing = true;
    }
    // Whoever has not heard of the former generation has no claims told for the next.
    if (!this.#preparing || members.some(({ claims, given }) => claims === undefined || given !== undefined)) return;
    const plan = handOver(
      this.#count,
      [...this.#members].map(([memberId, { claims }]) => ({ memberId, owned: claims! })),
    );
    for (const [id, of] of this.#members) {
      of.given = plan.get(id)!;
      delete of.claims;
    }
    this.#generation++;
    this.#preparing = false;
  }

  #join(): void {
    const id = `m${++this.#ids}`;
    const tenure = new HeldTenure(
      identity(id, this.#generation),
      TOPICS,
      () => 0,
      () => undefined,
    );
    this.#members.set(id, { tenure, claims: [] });
    this.#preparing = true;
  }

  #leave(): void {
    const ids = [...this.#members.keys()];
    this.#members.delete(this.#random.pick(ids));
    this.#preparing = true;
  }
}
