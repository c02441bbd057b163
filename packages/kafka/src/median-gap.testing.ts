/** Between moments in order: half of the gaps are not longer, whatever stalls of the machine the others hold. */
export function medianGap(moments: readonly number[]): number {
  const gaps = moments.slice(1).map((moment, i) => moment - moments[i]!);
  return gaps.sort((a, b) => a - b)[gaps.length >> 1]!;
}
