import type { ResumePlan } from './verify-slot.js';
import { formatLsn, ZERO_LSN } from './lsn.js';
import type { Lsn } from './lsn.js';
import type {
  Effect,
  EventOf,
  MachineOptions,
  PrepareStep,
  Preparation,
  StateOf,
  Survey,
  Tally,
  Transition,
} from './machine-states.js';
import type { Position } from './position.js';
import { addedAt, INITIAL, newSnapshot } from './snapshot/snapshot-state.js';
import type { SnapshotState } from './snapshot/snapshot-state.js';

/**
 * What each plan makes, in its order. S3: the mark stands before the slot is dropped, and a slot before its position, so that after a crash
 * between any two steps the next look finds either what was there before or what leads here again.
 */
const STEPS: Readonly<Record<Preparation['plan'], readonly PrepareStep[]>> = {
  resume: ['publication'],
  adopt: ['publication', 'position'],
  create: ['publication', 'create', 'position'],
  snapshot: ['publication', 'mark', 'drop', 'create', 'position'],
  finish: ['drop', 'unpublish', 'done'],
};

type Made = Exclude<ResumePlan, { readonly kind: 'refused' | 'busy' | 'finished' }>;

/** Begins what the plan asks for. */
export function prepare(options: MachineOptions, tally: Tally, survey: Survey, made: Made): Transition {
  const plan = made.kind;
  const { server, position, keys } = survey;
  const begins = snapshotOf(made, survey);
  const preparation: Preparation = {
    plan,
    // A table that is new is not in the position before its snapshot is.
    steps: plan === 'resume' && begins !== undefined ? [...STEPS[plan], 'position'] : STEPS[plan],
    server,
    position,
    keys,
    publication: 0,
    slot: undefined,
    begins,
  };
  const state: StateOf<'preparing'> = { name: 'preparing', tally, ...preparation };
  const because = made.kind === 'snapshot' ? made.because : undefined;
  const message = `capture ${options.name}: new snapshot because of ${because?.message}`;
  const told: Effect[] = because === undefined ? [] : [{ do: 'log', level: 'warn', message }];
  return { state, effects: [...told, effectOf(options, state)] };
}

/** The next step, with what the one before has found; undefined when that was the last. */
export function prepareNext(
  options: MachineOptions,
  before: StateOf<'preparing'>,
  { publication, slot }: EventOf<'prepared'>,
): Transition | undefined {
  const state: StateOf<'preparing'> = {
    ...before,
    steps: before.steps.slice(1),
    publication: publication ?? before.publication,
    slot: slot ?? before.slot,
  };
  return state.steps.length === 0 ? undefined : { state, effects: [effectOf(options, state)] };
}

/** The position a prepared stream goes on from. */
export function streamedFrom({ position, server, keys, begins }: Preparation): Position {
  const snapshots = [...position!.snapshots, ...(begins === undefined ? [] : [begins.id])];
  return { ...position!, timeline: server.timeline, keys, snapshots };
}

/** The snapshot that a plan begins: of all tables, or of those that the position does not know. */
function snapshotOf(made: Made, { position, keys }: Survey): SnapshotState | undefined {
  if (made.kind === 'snapshot')
    return Object.keys(keys).length === 0 ? undefined : newSnapshot(INITIAL, Object.keys(keys));
  if (made.kind !== 'resume' || made.added.length === 0) return undefined;
  return newSnapshot(addedAt(formatLsn(position!.endLsn)), made.added);
}

function effectOf(options: MachineOptions, state: Preparation): Effect {
  const { begins } = state;
  switch (state.steps[0]!) {
    case 'publication':
      return { do: 'publication' };
    case 'mark':
      return { do: 'write', position: first(options, state, 'snapshot', ZERO_LSN) };
    case 'drop':
      return { do: 'drop-slot' };
    case 'create':
      return { do: 'create-slot' };
    case 'unpublish':
      return { do: 'drop-publication' };
    case 'position': {
      if (state.plan === 'resume') return { do: 'write', position: streamedFrom(state), begins };
      const from = state.slot?.lsn ?? state.server.slot?.confirmedFlushLsn ?? ZERO_LSN;
      return { do: 'write', position: first(options, state, 'streaming', from), begins };
    }
    case 'done':
      return { do: 'write', position: { ...state.position!, phase: 'done' } };
  }
}

function first(options: MachineOptions, state: Preparation, phase: Position['phase'], endLsn: Lsn): Position {
  const { server, publication, keys, begins } = state;
  const snapshots = phase === 'streaming' && begins !== undefined ? [begins.id] : [];
  const { systemId, timeline } = server;
  // Not endLsn: the next commit record may begin exactly there.
  const commitLsn = ZERO_LSN;
  return { phase, systemId, timeline, slot: options.slot, publication, commitLsn, endLsn, xid: 0, keys, snapshots };
}
