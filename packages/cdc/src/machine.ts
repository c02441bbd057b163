import { errorCode, errorMessage } from '@headwater/core';
import { CaptureError, isFatal, isOfLog } from './cdc.errors.js';
import { formatLsn, ZERO_LSN } from './lsn.js';
import type { Lsn } from './lsn.js';
import type {
  After,
  Effect,
  EventName,
  EventOf,
  MachineEvent,
  MachineOptions,
  MachineState,
  StateName,
  StateOf,
  Tally,
  Transition,
} from './machine-states.js';
import { prepare, prepareNext, streamedFrom } from './prepare.js';
import { planResume } from './verify-slot.js';

/** The first state of every capture. */
export const IDLE: MachineState = { name: 'idle', tally: { failures: 0, waits: 0, reconnects: 0 } };

const RETRY_MS = { first: 100, most: 5_000 };
/** A dead owner's slot is free within milliseconds when its socket was closed: look soon, and not much later when it was not. */
const WAIT_MS = { first: 50, most: 800 };

/** Slot or publication, by the server's word or by what was read of it. */
const GONE: ReadonlySet<string> = new Set(['42704', 'CDC_PUBLICATION_MISSING']);

/**
 * The whole life of a capture as a pure function: what has happened, and what is to be done now. See SPEC.md for the diagram and the
 * invariants (S1 to S8) that hold here.
 */
export function next(options: MachineOptions, state: MachineState, event: MachineEvent): Transition {
  // The table has a handler for exactly this pair; only the compiler cannot follow it through two unions.
  const handle = TABLE[state.name][event.name] as unknown as (
    state: MachineState,
    event: MachineEvent,
    options: MachineOptions,
  ) => Transition;
  return handle(state, event, options);
}

type Handler<S extends StateName, E extends EventName> = (
  state: StateOf<S>,
  event: EventOf<E>,
  options: MachineOptions,
) => Transition;

const EVENTS = {
  start: never,
  stop: never,
  connected: never,
  surveyed: never,
  locked: never,
  acquired: never,
  fenced: never,
  prepared: never,
  progressed: never,
  snapshotsOver: never,
  drained: never,
  failed: never,
  disconnected: never,
  woke: never,
} satisfies Record<EventName, typeof never>;

/** Something was asked, or is waited for. Nothing is in a state that closing would harm. */
const ASKING = { ...EVENTS, start: ignore, stop: (state: MachineState) => close(state, { do: 'stop' }), failed };

/** Over for good: nothing is under way that could answer. */
const OVER = { ...EVENTS, start: ignore, stop: ignore };

const TABLE: { readonly [S in StateName]: { readonly [E in EventName]: Handler<S, E> } } = {
  idle: { ...EVENTS, start: connect, stop: (state) => to({ ...state, name: 'stopped' }, { do: 'end' }) },
  connecting: { ...ASKING, connected: (state) => survey(state, 'nothing') },
  verifying: { ...ASKING, surveyed: verified },
  locking: {
    ...ASKING,
    locked: (state, { held }) =>
      held ? survey(state, 'lock') : close(state, { do: 'wait', holder: 'another process that prepares it' }),
  },
  acquiring: { ...ASKING, acquired: (state) => fence(state, 'slot', false) },
  fencing: {
    ...ASKING,
    fenced(state) {
      // P7: what was received and never committed comes with a new connection only.
      if (state.spent) return close(state, { do: 'again' });
      return survey(state, state.hold === 'slot' ? 'slot' : 'fenced lock');
    },
  },
  preparing: { ...ASKING, prepared },
  streaming: {
    ...ASKING,
    stop: ({ tally }) => to({ name: 'draining', tally, next: 'stop' }, { do: 'drain' }),
    progressed: (state) => to({ ...state, tally: { ...state.tally, failures: 0, waits: 0 } }),
    snapshotsOver: (state, _, { snapshot }) =>
      snapshot === 'only' ? to({ ...state, name: 'draining', next: 'again' }, { do: 'drain' }) : to(state),
    failed: lost,
  },
  draining: {
    ...OVER,
    stop: (state) => to({ ...state, next: 'stop' }),
    progressed: ignore,
    snapshotsOver: ignore,
    drained: (state) => close(state, { do: state.next }),
    // What is not published now comes again at the next start.
    failed: (state, { error }) => (isFatal(error) ? halt(state, error) : close(state, { do: state.next })),
  },
  holding: { ...ASKING, woke: (state) => fence(state, 'slot', state.spent) },
  // Answers to what was asked before may still come, all of them before `disconnected`.
  closing: {
    start: ignore,
    stop: (state) => to(state.after.do === 'halt' ? state : { ...state, after: { do: 'stop' } }),
    connected: ignore,
    surveyed: ignore,
    locked: ignore,
    acquired: ignore,
    fenced: ignore,
    prepared: ignore,
    progressed: ignore,
    snapshotsOver: ignore,
    drained: ignore,
    failed: ignore,
    disconnected,
    woke: ignore,
  },
  waiting: { ...ASKING, woke: connect },
  retrying: { ...ASKING, woke: connect },
  stopped: OVER,
  halted: OVER,
};

function to(state: MachineState, ...effects: readonly Effect[]): Transition {
  return { state, effects };
}

function ignore(state: MachineState): Transition {
  return to(state);
}

function never(state: MachineState, event: MachineEvent): Transition {
  const message = `event "${event.name}" in state "${state.name}". Nothing was published or acknowledged for it; report this as a defect.`;
  return halt(state, new CaptureError('CDC_STATE_INVALID', message, { event: event.name, state: state.name }));
}

function connect({ tally }: Pick<MachineState, 'tally'>): Transition {
  return to({ name: 'connecting', tally }, { do: 'connect' });
}

function survey({ tally }: MachineState, hold: StateOf<'verifying'>['hold']): Transition {
  return to({ name: 'verifying', tally, hold }, { do: 'survey' });
}

function lock({ tally }: MachineState): Transition {
  return to({ name: 'locking', tally }, { do: 'lock' });
}

function acquire({ tally }: MachineState, confirmed: Lsn): Transition {
  return to({ name: 'acquiring', tally }, { do: 'acquire', confirmed });
}

function fence({ tally }: MachineState, hold: 'lock' | 'slot', spent: boolean): Transition {
  return to({ name: 'fencing', tally, hold, spent }, { do: 'fence' });
}

function close({ tally }: MachineState, after: After, ...effects: readonly Effect[]): Transition {
  return to({ name: 'closing', tally, after }, ...effects, { do: 'disconnect' });
}

function halt(state: MachineState, error: unknown): Transition {
  return close(state, { do: 'halt', error }, { do: 'report', error });
}

/**
 * S2: decides how to go on. Without the fence that is only where to look again, fenced: under the slot, or under the lock when the slot
 * cannot be used as it is. The position may be older than what its writer has acknowledged, as long as a marker of the log is under way.
 */
function verified(state: StateOf<'verifying'>, survey: EventOf<'surveyed'>, options: MachineOptions): Transition {
  const { server, position, keys } = survey;
  const plan = planResume({ ...options, keys }, server, position, state.hold === 'slot');
  if (plan.kind === 'finished') return close(state, { do: 'stop' });
  if (plan.kind === 'busy') return close(state, { do: 'wait', holder: `pid ${plan.pid}` });
  const fenced = state.hold === 'slot' || state.hold === 'fenced lock';
  if (plan.kind === 'refused') {
    // A fence from the wrong cluster would end the capture of the right one.
    if (fenced || plan.error.code === 'CDC_OTHER_CLUSTER') return halt(state, plan.error);
    return state.hold === 'nothing' ? lock(state) : fence(state, 'lock', false);
  }
  if (state.hold === 'nothing') {
    const confirmed = server.slot?.confirmedFlushLsn ?? ZERO_LSN;
    return plan.kind === 'resume' ? acquire(state, confirmed) : lock(state);
  }
  // Not what this hold is for: somebody was faster, or what was seen before the fence was old.
  if ((plan.kind === 'resume') !== (state.hold === 'slot')) return close(state, { do: 'again' });
  return fenced ? prepare(options, state.tally, survey, plan) : fence(state, 'lock', false);
}

function prepared(state: StateOf<'preparing'>, event: EventOf<'prepared'>, options: MachineOptions): Transition {
  const more = prepareNext(options, state, event);
  if (more !== undefined) return more;
  if (state.plan !== 'resume') return close(state, { do: 'again' });
  const position = streamedFrom(state);
  const message = `capture ${options.name}: streaming from ${formatLsn(position.endLsn)}`;
  const effects: Effect[] = [{ do: 'log', level: 'info', message }, { do: 'ready' }, { do: 'stream', position }];
  return to({ name: 'streaming', tally: { ...state.tally, waits: 0 } }, ...effects);
}

/** S6: halts on what a repetition cannot mend, waits for who has the slot, and tries everything else again. */
function failed(state: MachineState, { error }: EventOf<'failed'>, options: MachineOptions): Transition {
  // Slot or publication were dropped since the last look: the next one tells what that means.
  const code = errorCode(error) ?? '';
  const gone = GONE.has(code) && (state.name === 'acquiring' || isSpent(state));
  if (isFatal(error) && !gone) return halt(state, error);
  // Lost the race for the slot: Postgres names the holder in its message.
  if (errorCode(error) === '55006') return close(state, { do: 'wait', holder: errorMessage(error) });
  const kept = isOfLog(error) && hasSlot(state);
  const message = `capture ${options.name}: ${errorMessage(error)}${kept ? ' The slot is kept meanwhile.' : ''}`;
  const told: Effect[] = [
    { do: 'report', error },
    { do: 'log', level: 'warn', message },
  ];
  return kept ? hold(state, ...told) : close(state, { do: 'retry' }, ...told);
}

/** S8: the server's side is no worse for it. Without the stream a long outage would look to the server like a capture that is gone. */
function hold(state: MachineState, ...told: readonly Effect[]): Transition {
  const { ms, tally } = backOff(state.tally);
  return to({ name: 'holding', tally, spent: isSpent(state) }, ...told, { do: 'hold', ms });
}

/** Whether our own stream has the slot, as far as is known. */
function hasSlot(state: MachineState): boolean {
  if (state.name === 'fencing' || state.name === 'verifying') return state.hold === 'slot';
  if (state.name === 'preparing') return state.plan === 'resume';
  return state.name === 'streaming' || state.name === 'holding';
}

function isSpent(state: MachineState): boolean {
  return state.name === 'streaming' || ((state.name === 'fencing' || state.name === 'holding') && state.spent);
}

function backOff(tally: Tally): { readonly ms: number; readonly tally: Tally } {
  const ms = Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** tally.failures);
  return { ms, tally: { ...tally, failures: tally.failures + 1 } };
}

function lost(state: StateOf<'streaming'>, event: EventOf<'failed'>, options: MachineOptions): Transition {
  const { tally } = state;
  return failed({ ...state, tally: { ...tally, reconnects: tally.reconnects + 1 } }, event, options);
}

function disconnected({ tally, after }: StateOf<'closing'>, _: MachineEvent, options: MachineOptions): Transition {
  switch (after.do) {
    case 'again':
      return connect({ tally });
    case 'stop':
      return to({ name: 'stopped', tally }, { do: 'end' });
    case 'halt':
      return to({ name: 'halted', tally, error: after.error }, { do: 'end', error: after.error });
    case 'retry': {
      const { ms, tally: tried } = backOff(tally);
      return to({ name: 'retrying', tally: tried }, { do: 'sleep', ms });
    }
    case 'wait': {
      const ms = Math.min(WAIT_MS.most, WAIT_MS.first * 2 ** tally.waits);
      const message = `capture ${options.name}: slot "${options.slot}" is held by ${after.holder}, waiting`;
      const told: Effect[] = tally.waits === 0 ? [{ do: 'log', level: 'info', message }] : [];
      const waiting: MachineState = { name: 'waiting', tally: { ...tally, waits: tally.waits + 1 } };
      return to(waiting, ...told, { do: 'ready' }, { do: 'sleep', ms });
    }
  }
}
