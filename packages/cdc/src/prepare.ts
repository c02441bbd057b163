import type { ResumePlan } from './verify-slot.js';
import { ZERO_LSN } from './lsn.js';
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

/**
 * What each plan makes, in its order. S3: the mark stands before the slot is dropped, and a slot before its position, so that after a crash
 * between any two steps the next look finds either what was there before or what leads here again.
 */
const STEPS: Readonly<Record<Preparation['plan'], readonly PrepareStep[]>> = {
  resume: ['publication'],
  adopt: ['publication', 'position'],
  create: ['publication', 'create', 'position'],
  snapshot: ['publication', 'mark', 'drop', 'create', 'rows'],
  only: ['mark', 'place', 'rows'],
};

type Made = Exclude<ResumePlan, { readonly kind: 'refused' | 'busy' | 'finished' }>;

/** Begins what the plan asks for. */
export function prepare(options: MachineOptions, tally: Tally, survey: Survey, made: Made): Transition {
  const plan = made.kind === 'snapshot' && options.snapshot === 'only' ? 'only' : made.kind;
  const { server, position, keys } = survey;
  const preparation: Preparation = {
    plan,
    steps: STEPS[plan],
    server,
    position,
    keys,
    publication: 0,
    slot: undefined,
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
export function streamedFrom({ position, server, keys }: Preparation): Position {
  return { ...position!, timeline: server.timeline, keys };
}

function effectOf(options: MachineOptions, state: Preparation): Effect {
  const from = state.slot ?? { lsn: state.server.slot?.confirmedFlushLsn ?? ZERO_LSN, exported: undefined };
  switch (state.steps[0]!) {
    case 'publication':
      return { do: 'publication' };
    case 'mark':
      return { do: 'write', position: first(options, state, 'snapshot', ZERO_LSN) };
    case 'drop':
      return { do: 'drop-slot' };
    case 'create':
      return { do: 'create-slot' };
    case 'place':
      return { do: 'read-place' };
    case 'position':
      return { do: 'write', position: first(options, state, 'streaming', from.lsn) };
    case 'rows': {
      const phase = state.plan === 'only' ? 'done' : 'streaming';
      return { do: 'snapshot', from, finished: first(options, state, phase, from.lsn) };
    }
  }
}

function first(options: MachineOptions, state: Preparation, phase: Position['phase'], endLsn: Lsn): Position {
  const { server, publication, keys } = state;
  const { systemId, timeline } = server;
  // Not endLsn: the next commit record may begin exactly there.
  const commitLsn = ZERO_LSN;
  return { phase, systemId, timeline, slot: options.slot, publication, commitLsn, endLsn, xid: 0, keys };
}
