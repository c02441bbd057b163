import { errorCode } from '@headwater/core';

export type Outcome = 'accepted' | 'refused';

/** What a model makes of a message: whatever it throws is a refusal. */
export function outcomeOfModel(act: () => void): Outcome {
  try {
    act();
    return 'accepted';
  } catch {
    return 'refused';
  }
}

/** What the product makes of it: an error of another code than these is a defect, and thrown. */
export async function outcomeOf(
  act: () => Promise<void> | undefined,
  codes: readonly string[] = ['CDC_PROTOCOL'],
): Promise<Outcome> {
  try {
    const asked = act();
    if (asked !== undefined) await asked;
    return 'accepted';
  } catch (error) {
    if (codes.includes(errorCode(error) ?? '')) return 'refused';
    throw error;
  }
}

/** Throws at the first difference: a diff of so many lines would take longer than the test. */
export function assertSame(ours: readonly string[], theirs: readonly string[], what: string): void {
  const wrong = theirs.findIndex((line, i) => line !== ours[i]);
  if (wrong < 0 && ours.length === theirs.length) return;
  const at = wrong < 0 ? theirs.length : wrong;
  throw new Error(
    `${what}: ${ours.length} instead of ${theirs.length}, at ${at} "${ours[at]}" instead of "${theirs[at]}"`,
  );
}
