import type { StepKind } from './saga.js';

/** The steps of a saga as data: what `decide` needs to know of its class. */
export interface SagaSteps {
  readonly deadlineMs?: number;
  readonly steps: readonly { readonly name: string; readonly kind: StepKind; readonly undoable: boolean }[];
}

export type SagaStatus = 'running' | 'compensating' | 'completed' | 'rejected' | 'compensated' | 'parked';
export type StepStatus = 'waiting' | 'sent' | 'done' | 'rejected' | 'undoing' | 'undone' | 'failed';

export interface StepState {
  readonly name: string;
  readonly status: StepStatus;
  /** Milliseconds since 1970 of the last change. */
  readonly at: number;
  readonly result?: unknown;
}

export interface SagaState {
  readonly id: string;
  readonly status: SagaStatus;
  readonly reason?: string;
  readonly steps: readonly StepState[];
  readonly startedAt: number;
  readonly updatedAt: number;
  /** While the command in flight is parked at its participant: how the saga goes on when the reply comes after all. */
  readonly interrupted?: { readonly status: 'running' | 'compensating'; readonly reason?: string };
}

export interface Reply {
  readonly step: string;
  readonly direction: 'do' | 'undo';
  /**
   * `rejected`: refused for a business reason; `failed`: technical errors, retries used up. Nothing was kept in either case. `parked`: the
   * command was set aside for an operator; another reply follows when it is handled.
   */
  readonly outcome: 'ok' | 'rejected' | 'failed' | 'parked';
  readonly reason?: string;
  readonly result?: unknown;
}

export type SagaEvent = { readonly type: 'replied'; readonly reply: Reply } | { readonly type: 'deadline' };

export type SagaEffect =
  | { readonly type: 'send'; readonly step: string; readonly direction: 'do' | 'undo' }
  | { readonly type: 'set-deadline'; readonly atMs: number }
  | { readonly type: 'cancel-deadline' };

/** The next state and what to do; `undefined`: the event changes nothing (late, repeated, or not for this state). */
export interface Decision {
  readonly state: SagaState;
  readonly effects: readonly SagaEffect[];
}

export const isOpen = (status: SagaStatus): boolean => status === 'running' || status === 'compensating';

/** G1: a saga starts by sending its first step. */
export function start(saga: SagaSteps, id: string, now: number): Decision {
  const waiting = saga.steps.map((step): StepState => ({ name: step.name, status: 'waiting', at: now }));
  const state: SagaState = { id, status: 'running', steps: waiting, startedAt: now, updatedAt: now };
  const deadline: SagaEffect[] =
    saga.deadlineMs === undefined ? [] : [{ type: 'set-deadline', atMs: now + saga.deadlineMs }];
  return sendStep(state, saga.steps[0]!.name, now, deadline);
}

export function decide(saga: SagaSteps, state: SagaState, event: SagaEvent, now: number): Decision | undefined {
  if (state.interrupted !== undefined && event.type === 'replied') return onReply(saga, state, event.reply, now);
  if (!isOpen(state.status)) return undefined;
  return event.type === 'deadline' ? onDeadline(saga, state, now) : onReply(saga, state, event.reply, now);
}

function onReply(saga: SagaSteps, state: SagaState, reply: Reply, now: number): Decision | undefined {
  const step = state.steps.find((one) => one.name === reply.step);
  // G2: only the answer to what is in flight counts; a late or repeated reply changes nothing.
  if (step?.status !== (reply.direction === 'do' ? 'sent' : 'undoing')) return undefined;
  if (reply.outcome === 'parked') return onParked(state, reply, now);
  const going = resumed(state);
  return reply.direction === 'do' ? onDone(saga, going, reply, now) : onUndone(saga, going, reply, now);
}

/** G8: a parked command may still happen. Nothing is sent or taken back until its reply comes; an operator sees the reason. */
function onParked(state: SagaState, reply: Reply, now: number): Decision | undefined {
  const { status } = state;
  if (status !== 'running' && status !== 'compensating') return undefined;
  const interrupted = { status, ...(state.reason === undefined ? {} : { reason: state.reason }) };
  const what = reply.direction === 'do' ? reply.step : `undo of ${reply.step}`;
  return end({ ...state, interrupted }, 'parked', `${what}: ${reply.reason ?? 'parked'}`, now);
}

function resumed(state: SagaState): SagaState {
  if (state.interrupted === undefined) return state;
  const { interrupted, reason: _, ...rest } = state;
  return { ...rest, ...interrupted };
}

function onDone(saga: SagaSteps, state: SagaState, reply: Reply, now: number): Decision {
  const index = saga.steps.findIndex((step) => step.name === reply.step);
  if (reply.outcome === 'ok') {
    const done = withStep(state, reply.step, { status: 'done', at: now, result: reply.result });
    const next = saga.steps[index + 1];
    return next === undefined ? end(done, 'completed', undefined, now) : sendStep(done, next.name, now);
  }
  const reason = reply.reason ?? reply.outcome;
  const refused = withStep(state, reply.step, { status: reply.outcome === 'failed' ? 'failed' : 'rejected', at: now });
  // G3: past the pivot nothing is taken back.
  if (saga.steps[index]!.kind === 'retriable') return end(refused, 'parked', `${reply.step}: ${reason}`, now);
  return compensate(saga, { ...refused, reason }, now);
}

function onUndone(saga: SagaSteps, state: SagaState, reply: Reply, now: number): Decision {
  if (reply.outcome === 'ok') return compensate(saga, withStep(state, reply.step, { status: 'undone', at: now }), now);
  // G4: an undo that cannot be done needs a person; nothing further is sent.
  const failed = withStep(state, reply.step, { status: 'failed', at: now });
  return end(
    failed,
    'parked',
    `undo of ${reply.step}: ${reply.reason ?? reply.outcome} (saga: ${state.reason ?? 'unknown'})`,
    now,
  );
}

function onDeadline(saga: SagaSteps, state: SagaState, now: number): Decision | undefined {
  if (state.status !== 'running') return undefined;
  const inFlight = state.steps.find((step) => step.status === 'sent')!;
  const declared = saga.steps.find((step) => step.name === inFlight.name)!;
  // G5: a pivot in flight may have happened; only its reply decides.
  if (declared.kind !== 'compensable') return undefined;
  // G6: a compensable step in flight may have happened or may still happen; its undo settles both, for the participant refuses a do after its undo.
  const settled = declared.undoable
    ? withStep(state, inFlight.name, { status: 'done', at: now })
    : withStep(state, inFlight.name, { status: 'rejected', at: now });
  return compensate(saga, { ...settled, reason: 'deadline' }, now);
}

/** Undoes the last step that is done and can be undone; ends when there is none left. */
function compensate(saga: SagaSteps, state: SagaState, now: number): Decision {
  const undoable = new Set(saga.steps.filter((step) => step.undoable).map((step) => step.name));
  const next = state.steps.findLast((step) => step.status === 'done' && undoable.has(step.name));
  if (next === undefined) {
    const tookBack = state.steps.some((step) => step.status === 'undone');
    return end(state, tookBack ? 'compensated' : 'rejected', state.reason, now);
  }
  const undoing = withStep(state, next.name, { status: 'undoing', at: now });
  return {
    state: { ...undoing, status: 'compensating', updatedAt: now },
    effects: [{ type: 'send', step: next.name, direction: 'undo' }],
  };
}

function sendStep(state: SagaState, name: string, now: number, before: readonly SagaEffect[] = []): Decision {
  const sent = withStep(state, name, { status: 'sent', at: now });
  return { state: { ...sent, updatedAt: now }, effects: [...before, { type: 'send', step: name, direction: 'do' }] };
}

function end(state: SagaState, status: SagaStatus, reason: string | undefined, now: number): Decision {
  return {
    state: { ...state, status, updatedAt: now, ...(reason === undefined ? {} : { reason }) },
    effects: [{ type: 'cancel-deadline' }],
  };
}

function withStep(state: SagaState, name: string, change: Omit<StepState, 'name'>): SagaState {
  return { ...state, steps: state.steps.map((step) => (step.name === name ? { name, ...change } : step)) };
}
