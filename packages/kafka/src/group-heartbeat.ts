import type { HeldTenure, Membership } from '@headwater/core';
import {
  COORDINATOR_NOT_AVAILABLE,
  ILLEGAL_GENERATION,
  NOT_COORDINATOR,
  REBALANCE_IN_PROGRESS,
  isMemberFenced,
} from './kafka.errors.js';
import type { Lane } from './lane.js';
import { GROUP } from './requests/call.js';
import { heartbeat } from './requests/group.js';
import { Standstill } from './standstill.js';
import { aborted, wait } from './wait.js';
import type { Wire } from './wire.js';

/** How a member lost its place: told by the coordinator (`error`), or by its silence for longer than the session. */
export interface Loss {
  readonly error: number | undefined;
  /** Since the last heartbeat that was answered. */
  readonly silentMs: number;
  /** How much of that this process did not run: stopped, or its event loop blocked. */
  readonly stalledMs: number;
}

export interface Held {
  /** Ended here when the coordinator says so, or has been silent for a session. */
  readonly tenure: HeldTenure;
  /** Who sends them: in the generation that was joined last, of which the tenure may not know yet. */
  readonly seat: { readonly membership: Membership };
  readonly sessionTimeoutMs: number;
  /** The group asks its members to join again. */
  readonly onRebalance: () => void;
  /** Ends the heartbeats: the work has settled. */
  readonly settled: AbortSignal;
}

/**
 * The shorter, the sooner all members know of a rebalance: what moves waits for the last of them to know, twice. Against it stands the
 * cost of an idle member; decision 6 has the figures.
 */
const HEARTBEAT_MS = 200;
/** What is asked back in one generation is given on in the next: after each, a member listens more often for a while. */
const EAGER_HEARTBEAT_MS = 50;
const EAGER_FOR_MS = 1_000;

/**
 * Heartbeats until the work has settled, also while the member joins again and after it was told to stop: else one that needs longer than its
 * session to end its work would be thrown out. Resolves with the loss of the place, when it was lost.
 */
export async function heartbeats(wire: Wire, lane: Lane, held: Held): Promise<Loss | undefined> {
  const standstill = new Standstill();
  try {
    return await beating(wire, lane, held, standstill);
  } finally {
    standstill.stop();
  }
}

async function beating(wire: Wire, lane: Lane, held: Held, standstill: Standstill): Promise<Loss | undefined> {
  const { tenure, seat, sessionTimeoutMs, onRebalance, settled } = held;
  const calmMs = Math.min(HEARTBEAT_MS, sessionTimeoutMs / 5);
  let answered = { at: performance.now(), stalledMs: 0 };
  let last = { generation: seat.membership.generation, since: answered.at };
  while (!settled.aborted) {
    const restedAt = performance.now();
    const { generation: reached } = seat.membership;
    if (last.generation !== reached) last = { generation: reached, since: restedAt };
    const everyMs = restedAt - last.since < EAGER_FOR_MS ? Math.min(EAGER_HEARTBEAT_MS, calmMs) : calmMs;
    await wait(everyMs, settled);
    if (settled.aborted) break;
    const sent = { at: performance.now(), stalledMs: standstill.ms };
    const leftMs = sessionTimeoutMs - (sent.at - answered.at);
    const { membership } = seat;
    const answer = leftMs <= 0 ? undefined : beat(wire, lane, membership, leftMs);
    const error = answer && (await answerWithin(leftMs, answer, settled));
    // The group may be in the next generation, and the answer to the join on its way.
    const isLate = tenure.joining || seat.membership.generation !== membership.generation;
    const isKnown = error === 0 || error === REBALANCE_IN_PROGRESS || (error === ILLEGAL_GENERATION && isLate);
    if (isKnown) answered = sent;
    if (error === REBALANCE_IN_PROGRESS && !isLate) onRebalance();
    // The broker has given the partitions away after this time, heard or not. The clock is monotonic and counts a stopped process.
    const silentMs = performance.now() - answered.at;
    const fenced = error !== undefined && !isKnown && isMemberFenced(error);
    if (fenced || silentMs >= sessionTimeoutMs) {
      const stalledMs = standstill.ms - answered.stalledMs;
      tenure.end();
      await aborted(settled);
      return { error: fenced ? error : undefined, silentMs, stalledMs };
    }
  }
  return undefined;
}

/** The answer's error code; undefined when none came in time. */
async function answerWithin(
  leftMs: number,
  asking: Promise<number | undefined>,
  settled: AbortSignal,
): Promise<number | undefined> {
  const over = new AbortController();
  const error = await Promise.race([asking, wait(leftMs, over.signal, settled).then(() => undefined)]);
  over.abort();
  return error;
}

async function beat(wire: Wire, lane: Lane, membership: Membership, leftMs: number): Promise<number | undefined> {
  const { groupId } = membership;
  try {
    const coordinator = await wire.coordinator(GROUP, groupId);
    const call = heartbeat(membership, Math.min(leftMs, wire.requestTimeoutMs));
    const { error } = await wire.send(coordinator, call, lane);
    if (error === COORDINATOR_NOT_AVAILABLE || error === NOT_COORDINATOR) wire.forgetCoordinator(GROUP, groupId);
    return error;
  } catch {
    // Silence counts against the session time-out; the next beat looks for the coordinator anew.
    wire.forgetCoordinator(GROUP, groupId);
    return undefined;
  }
}
