export interface CoPartitionMember {
  readonly memberId: string;
  /** Partition numbers it had in the previous generation. */
  readonly owned: readonly number[];
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
