/**
 * Member → partition numbers, the same for all topics. Counts differ by one at most, and a member keeps what it had as far as that allows.
 * `owned` tells what each had before; of two that claim one number the smaller id wins.
 */
export function assignSticky(
  partitionCount: number,
  owned: ReadonlyMap<string, readonly number[]>,
): ReadonlyMap<string, readonly number[]> {
  const ids = [...owned.keys()].sort();
  const fair = Math.floor(partitionCount / ids.length);
  let larger = partitionCount % ids.length;
  const free = new Set(Array.from({ length: partitionCount }, (_, n) => n));
  const given = new Map<string, number[]>();
  for (const id of ids) {
    const claims = owned.get(id)!.filter((n) => free.has(n));
    const kept = claims.slice(0, claims.length > fair && larger > 0 ? fair + 1 : fair);
    if (kept.length > fair) larger--;
    for (const n of kept) free.delete(n);
    given.set(id, kept);
  }
  const rest = [...free];
  for (const kept of given.values()) while (kept.length < fair) kept.push(rest.shift()!);
  for (const kept of given.values()) {
    if (kept.length === fair && rest.length > 0) kept.push(rest.shift()!);
    kept.sort((a, b) => a - b);
  }
  return given;
}
