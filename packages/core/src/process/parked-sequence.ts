import { decodeParkedUnit, encodeParkedUnit, type ParkedUnit } from './parked-unit.js';
import type { Entries, EntryWrites } from './write-set.js';

/** Which numbers a sequence has in the state: from `first` to before `next`. */
export interface Bounds {
  readonly first: number;
  readonly next: number;
}

/** The entry that says that a sequence is parked, and where it begins and ends. */
export const boundsEntry = (sequence: string): string => `p:${sequence}`;
/** The entry of its nth unit. */
export const unitEntry = (sequence: string, n: number): string => `q:${sequence}/${n}`;

export function boundsOf(entries: Entries, sequence: string): Bounds | undefined {
  const value = entries.get(boundsEntry(sequence));
  return value === undefined ? undefined : decodeBounds(value);
}

export function decodeBounds(value: Buffer): Bounds {
  const [first, next] = value.toString('utf8').split(' ');
  return { first: Number(first), next: Number(next) };
}

export function firstParked(entries: Entries, sequence: string): ParkedUnit | undefined {
  const bounds = boundsOf(entries, sequence);
  return bounds === undefined ? undefined : decodeParkedUnit(entries.get(unitEntry(sequence, bounds.first))!);
}

/** P6: a parked unit waits behind those of its sequence. */
export function appendParked(writes: EntryWrites, sequence: string, parked: ParkedUnit): void {
  const { first, next } = boundsOf(writes, sequence) ?? { first: 0, next: 0 };
  writes.set(unitEntry(sequence, next), encodeParkedUnit(parked));
  writes.set(boundsEntry(sequence), encodeBounds({ first, next: next + 1 }));
}

export function replaceFirst(writes: EntryWrites, sequence: string, parked: ParkedUnit): void {
  writes.set(unitEntry(sequence, boundsOf(writes, sequence)!.first), encodeParkedUnit(parked));
}

/** With its last unit the sequence is over: what follows on its key is handled again. */
export function dropFirst(writes: EntryWrites, sequence: string): void {
  const bounds = boundsOf(writes, sequence);
  // A parked timer that set or cancelled itself when it was handled again.
  if (bounds === undefined) return;
  const { first, next } = bounds;
  writes.set(unitEntry(sequence, first), null);
  writes.set(boundsEntry(sequence), first + 1 === next ? null : encodeBounds({ first: first + 1, next }));
}

/** Returns how many there were. */
export function dropAll(writes: EntryWrites, sequence: string): number {
  const bounds = boundsOf(writes, sequence);
  if (bounds === undefined) return 0;
  for (let n = bounds.first; n < bounds.next; n++) writes.set(unitEntry(sequence, n), null);
  writes.set(boundsEntry(sequence), null);
  return bounds.next - bounds.first;
}

const encodeBounds = ({ first, next }: Bounds): Buffer => Buffer.from(`${first} ${next}`);
