export interface CoPartitionMember {
  readonly memberId: string;
  /** Partition numbers it holds, also those it was asked for and has not given back. */
  readonly owned: readonly number[];
}

/** What one member is told of the next generation, in partition numbers. */
export interface HandOver {
  readonly given: readonly number[];
  /** It holds them and is to give them back. */
  readonly asked: readonly number[];
  /** It will be given them when their owners have given them back. */
  readonly coming: readonly number[];
}

/**
 * Member → its part of the next generation: its share of `assignCoPartitions` without what another member still holds. Whoever holds more than
 * this gives it back and joins again; only then somebody else gets it (KIP-429). So no number ever has two owners, and who keeps its numbers is not
 * disturbed.
 */
export function handOver(partitionCount: number, members: readonly CoPartitionMember[]): ReadonlyMap<string, HandOver> {
  const isFree = (n: number, memberId: string) =>
    !members.some((other) => other.memberId !== memberId && other.owned.includes(n));
  const target = assignCoPartitions(partitionCount, members);
  return new Map(
    members.map(({ memberId, owned }) => {
      const wanted = target.get(memberId)!;
      const given = wanted.filter((n) => isFree(n, memberId));
      const asked = owned.filter((n) => !given.includes(n));
      return [memberId, { given, asked, coming: wanted.filter((n) => !given.includes(n)) }];
    }),
  );
}

/**
 * Partition number → member, the same for all topics. Counts differ by one at most; a member keeps what it had as far as that allows. Two
 * members that claim one number: the smaller member id wins. The same input gives the same output in any order.
 */
export function assignCoPartitions(
  partitionCount: number,
  members: readonly CoPartitionMember[],
): ReadonlyMap<string, readonly number[]> {
  const ordered = [...members].sort((a, b) => (a.memberId < b.memberId ? -1 : a.memberId > b.memberId ? 1 : 0));
  const fair = Math.floor(partitionCount / Math.max(1, ordered.length));
  let larger = partitionCount - fair * ordered.length;
  const taken = new Set<number>();
  const given = new Map<string, number[]>();
  for (const { memberId, owned } of ordered) {
    const claims = [...new Set(owned)]
      .filter((n) => n >= 0 && n < partitionCount && !taken.has(n))
      .sort((a, b) => a - b);
    const quota = claims.length > fair && larger > 0 ? fair + 1 : fair;
    const kept = claims.slice(0, quota);
    if (kept.length > fair) larger--;
    for (const n of kept) taken.add(n);
    given.set(memberId, kept);
  }
  const free = Array.from({ length: partitionCount }, (_, n) => n).filter((n) => !taken.has(n));
  for (const kept of given.values()) {
    while (kept.length < fair && free.length > 0) kept.push(free.shift()!);
  }
  for (const kept of given.values()) {
    if (kept.length === fair && larger > 0 && free.length > 0) {
      kept.push(free.shift()!);
      larger--;
    }
    kept.sort((a, b) => a - b);
  }
  return given;
}
