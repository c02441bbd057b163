import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import { assignCoPartitions, handOver, type CoPartitionMember } from './co-partitions.js';

describe('co-partition assignment', () => {
  const member = (memberId: string, ...owned: number[]): CoPartitionMember => ({ memberId, owned });
  const plan = (count: number, ...members: CoPartitionMember[]) =>
    Object.fromEntries(assignCoPartitions(count, members));

  it('gives every number to one member, evenly, whatever the members claim', () => {
    for (let count = 0; count <= 9; count++) {
      for (let size = 1; size <= 5; size++) {
        for (const claim of [
          () => [],
          () => [0, 1, 2, 3, 99, -1],
          (n: number) => [n, n + 1, n + 5],
          (n: number) => (n === 0 ? [0, 1, 2, 3, 4, 5, 6, 7, 8] : []),
        ]) {
          const members = Array.from({ length: size }, (_, n) => member(`m${n}`, ...claim(n)));
          const given = [...assignCoPartitions(count, members).values()];
          expect(given.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, n) => n));
          const sizes = given.map((of) => of.length);
          expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
        }
      }
    }
  });

  it('lets members keep what they had', () => {
    expect(plan(4, member('a', 1, 3), member('b', 0, 2))).toEqual({ a: [1, 3], b: [0, 2] });
    expect(plan(4, member('a', 0, 1, 2, 3), member('b'))).toEqual({ a: [0, 1], b: [2, 3] });
    expect(plan(5, member('a'), member('b', 2, 3, 4))).toEqual({ a: [0, 1], b: [2, 3, 4] });
  });

  it('gives nobody what somebody else holds, until that is given back', () => {
    const handed = (...members: CoPartitionMember[]) =>
      [...handOver(4, members).values()].map(({ given, asked, coming }) => [given, asked, coming]);
    expect(handed(member('a', 0, 1, 2, 3), member('b'))).toEqual([
      [[0, 1], [2, 3], []],
      [[], [], [2, 3]],
    ]);
    expect(handed(member('a', 0, 1, 3), member('b'))).toEqual([
      [[0, 1], [3], []],
      [[2], [], [3]],
    ]);
    expect(handed(member('a', 0, 1), member('b'))).toEqual([
      [[0, 1], [], []],
      [[2, 3], [], []],
    ]);
    // Two that hold the same: neither may go on with it.
    expect(handed(member('a', 0, 1), member('b', 1, 2, 3))).toEqual([
      [[0], [1], [1]],
      [[2, 3], [1], []],
    ]);
  });

  it('does not depend on the order of the members', () => {
    const members = [member('a', 0, 1), member('b', 1, 2), member('c')];
    expect(assignCoPartitions(7, members)).toEqual(assignCoPartitions(7, members.toReversed()));
  });

  it('moves as little as an even share allows, over random histories of members that come and go', () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
    const { below } = seededRandom(seed);
    for (let history = 0; history < 200; history++) {
      const count = 1 + below(24);
      let given: ReadonlyMap<string, readonly number[]> = new Map([[`m${below(1_000)}`, []]]);
      for (let step = 0; step < 20; step++) {
        const members = [...given].map(([memberId, owned]) => member(memberId, ...owned));
        for (let leaving = below(3); leaving > 0 && members.length > 1; leaving--) {
          members.splice(below(members.length), 1);
        }
        for (let joining = below(3); joining > 0; joining--) members.push(member(`m${history}-${step}-${joining}`));
        const next = assignCoPartitions(count, members);
        const kept = members.map(({ memberId, owned }) => next.get(memberId)!.filter((n) => owned.includes(n)).length);
        expect([seed, total(kept)]).toEqual([seed, mostKept(count, members)]);
        given = next;
      }
    }
  });

  /** An even share gives everybody `fair` numbers and one more to as many as there are left over: whoever had more than `fair` first. */
  function mostKept(count: number, members: readonly CoPartitionMember[]): number {
    const fair = Math.floor(count / members.length);
    const above = members.filter(({ owned }) => owned.length > fair).length;
    return total(members.map(({ owned }) => Math.min(owned.length, fair))) + Math.min(above, count % members.length);
  }

  const total = (numbers: readonly number[]) => numbers.reduce((sum, n) => sum + n, 0);
});
