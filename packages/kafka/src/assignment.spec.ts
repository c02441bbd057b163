import { describe, expect, it } from '@jest/globals';
import {
  assignCoPartitions,
  decodeAssignment,
  decodeOwned,
  encodeAssignment,
  encodeSubscription,
  type CoPartitionMember,
} from './assignment.js';

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

  it('does not depend on the order of the members', () => {
    const members = [member('a', 0, 1), member('b', 1, 2), member('c')];
    expect(assignCoPartitions(7, members)).toEqual(assignCoPartitions(7, members.toReversed()));
  });

  it('reads back what it sends to the members', () => {
    expect(decodeOwned(encodeSubscription(['t', 'u'], [4, 2]))).toEqual([4, 2]);
    expect(decodeOwned(encodeSubscription(['t'], []))).toEqual([]);
    const all = ['t', 'u'].flatMap((topic) => [1, 2].map((partition) => ({ topic, partition })));
    expect(decodeAssignment(encodeAssignment(['t', 'u'], [1, 2]))).toEqual(all);
    expect(decodeAssignment(encodeAssignment(['t'], []))).toEqual([]);
    expect(decodeAssignment(Buffer.alloc(0))).toEqual([]);
  });
});
