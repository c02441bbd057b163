import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import {
  decide,
  isOpen,
  start,
  type Decision,
  type Reply,
  type SagaEffect,
  type SagaEvent,
  type SagaState,
  type SagaStatus,
  type SagaSteps,
  type StepStatus,
} from './decide.js';

const saga: SagaSteps = {
  deadlineMs: 1_000,
  steps: [
    { name: 'hold', kind: 'compensable', undoable: true },
    { name: 'check', kind: 'compensable', undoable: false },
    { name: 'reserve', kind: 'compensable', undoable: true },
    { name: 'debit', kind: 'pivot', undoable: false },
    { name: 'credit', kind: 'retriable', undoable: false },
    { name: 'notify', kind: 'retriable', undoable: false },
  ],
};
const names = saga.steps.map((step) => step.name);
const deadline: SagaEvent = { type: 'deadline' };
const done = (step: string, result?: unknown): SagaEvent => reply(step, 'do', 'ok', undefined, result);
const undone = (step: string): SagaEvent => reply(step, 'undo', 'ok');
const rejected = (step: string, reason = 'refused'): SagaEvent => reply(step, 'do', 'rejected', reason);
const failed = (step: string): SagaEvent => reply(step, 'do', 'failed', 'broken');

function reply(
  step: string,
  direction: Reply['direction'],
  outcome: Reply['outcome'],
  reason?: string,
  result?: unknown,
): SagaEvent {
  return { type: 'replied', reply: { step, direction, outcome, ...(reason ? { reason } : {}), result } };
}

/** The state after a history, each event of which must count. */
function after(...events: readonly SagaEvent[]): SagaState {
  let { state } = start(saga, 'id', 0);
  events.forEach((event, i) => {
    const next = decide(saga, state, event, i + 1);
    if (next === undefined) throw new Error(`event ${i} changed nothing: ${JSON.stringify(event)}`);
    state = next.state;
  });
  return state;
}

const running = (count: number): SagaState => after(...names.slice(0, count).map((name) => done(name)));
const statuses = (state: SagaState): Record<string, StepStatus> =>
  Object.fromEntries(state.steps.map((step) => [step.name, step.status]));
const sends = (decision: Decision | undefined): string[] =>
  (decision?.effects ?? []).flatMap((effect) => (effect.type === 'send' ? [`${effect.direction} ${effect.step}`] : []));

describe('decide', () => {
  describe('states × events', () => {
    const states: Readonly<Record<string, SagaState>> = {
      'hold in flight': running(0),
      'check in flight': running(1),
      'reserve in flight': running(2),
      'debit in flight': running(3),
      'credit in flight': running(4),
      'notify in flight': running(5),
      'undoing reserve': after(done('hold'), done('check'), done('reserve'), rejected('debit')),
      'undoing hold': after(done('hold'), done('check'), rejected('reserve')),
      completed: running(6),
      rejected: after(rejected('hold')),
      compensated: after(done('hold'), rejected('check'), undone('hold')),
      'hold parked': after(reply('hold', 'do', 'parked', 'unreadable')),
      'credit parked': after(...names.slice(0, 4).map((name) => done(name)), reply('credit', 'do', 'parked', 'x')),
      'undo of hold parked': after(done('hold'), rejected('check'), reply('hold', 'undo', 'parked', 'x')),
      'parked in credit': after(...names.slice(0, 4).map((name) => done(name)), rejected('credit')),
      'parked in undo': after(done('hold'), rejected('check'), reply('hold', 'undo', 'failed', 'broken')),
    };
    const events: Readonly<Record<string, SagaEvent>> = Object.fromEntries([
      ['deadline', deadline],
      ...names.flatMap((step) =>
        (['do', 'undo'] as const).flatMap((direction) =>
          (['ok', 'rejected', 'failed', 'parked'] as const).map(
            (outcome) => [`${direction} ${step} ${outcome}`, reply(step, direction, outcome)] as const,
          ),
        ),
      ),
      ['do unknown ok', done('unknown')],
    ]);
    /** Everything that counts: status after it, and what is sent. Every other pair must change nothing. */
    const table: Readonly<Record<string, Readonly<Record<string, readonly [SagaStatus, ...string[]]>>>> = {
      'hold in flight': {
        'do hold parked': ['parked'],
        'do hold ok': ['running', 'do check'],
        'do hold rejected': ['rejected'],
        'do hold failed': ['rejected'],
        deadline: ['compensating', 'undo hold'],
      },
      'check in flight': {
        'do check parked': ['parked'],
        'do check ok': ['running', 'do reserve'],
        'do check rejected': ['compensating', 'undo hold'],
        'do check failed': ['compensating', 'undo hold'],
        deadline: ['compensating', 'undo hold'],
      },
      'reserve in flight': {
        'do reserve parked': ['parked'],
        'do reserve ok': ['running', 'do debit'],
        'do reserve rejected': ['compensating', 'undo hold'],
        'do reserve failed': ['compensating', 'undo hold'],
        deadline: ['compensating', 'undo reserve'],
      },
      'debit in flight': {
        'do debit parked': ['parked'],
        'do debit ok': ['running', 'do credit'],
        'do debit rejected': ['compensating', 'undo reserve'],
        'do debit failed': ['compensating', 'undo reserve'],
      },
      'credit in flight': {
        'do credit parked': ['parked'],
        'do credit ok': ['running', 'do notify'],
        'do credit rejected': ['parked'],
        'do credit failed': ['parked'],
      },
      'notify in flight': {
        'do notify parked': ['parked'],
        'do notify ok': ['completed'],
        'do notify rejected': ['parked'],
        'do notify failed': ['parked'],
      },
      'undoing reserve': {
        'undo reserve parked': ['parked'],
        'undo reserve ok': ['compensating', 'undo hold'],
        'undo reserve rejected': ['parked'],
        'undo reserve failed': ['parked'],
      },
      'undoing hold': {
        'undo hold parked': ['parked'],
        'undo hold ok': ['compensated'],
        'undo hold rejected': ['parked'],
        'undo hold failed': ['parked'],
      },
      'hold parked': {
        'do hold ok': ['running', 'do check'],
        'do hold rejected': ['rejected'],
        'do hold failed': ['rejected'],
      },
      'credit parked': {
        'do credit ok': ['running', 'do notify'],
        'do credit rejected': ['parked'],
        'do credit failed': ['parked'],
      },
      'undo of hold parked': {
        'undo hold ok': ['compensated'],
        'undo hold rejected': ['parked'],
        'undo hold failed': ['parked'],
      },
    };
    for (const [stateName, state] of Object.entries(states)) {
      it(`answers every event while ${stateName}, and ignores what is late, repeated or not for it`, () => {
        const expected = table[stateName] ?? {};
        const found: Record<string, readonly string[]> = {};
        for (const [eventName, event] of Object.entries(events)) {
          const decision = decide(saga, state, event, 50);
          if (decision !== undefined) found[eventName] = [decision.state.status, ...sends(decision)];
        }
        expect(found).toEqual(expected);
      });
    }
  });

  it('tells why a command is parked, sends nothing, and goes on with the reply as if nothing had been', () => {
    const parked = decide(saga, running(1), reply('check', 'do', 'parked', 'value is not JSON'), 60)!;
    expect(parked.state).toMatchObject({ status: 'parked', reason: 'check: value is not JSON' });
    expect(parked.effects).toEqual([{ type: 'cancel-deadline' }]);
    const going = decide(saga, parked.state, done('check'), 70)!;
    expect(going.state).toEqual({ ...decide(saga, running(1), done('check'), 70)!.state });
    const undoing = decide(saga, running(1), rejected('check', 'refused'), 50)!.state;
    const interrupted = decide(saga, undoing, reply('hold', 'undo', 'parked', 'x'), 60)!.state;
    expect(interrupted).toMatchObject({ status: 'parked', reason: 'undo of hold: x' });
    expect(decide(saga, interrupted, undone('hold'), 70)!.state).toMatchObject({
      status: 'compensated',
      reason: 'refused',
    });
  });

  it('G40 undoes the done steps in reverse and leaves the rejected one, with the reason kept', () => {
    let decision = decide(saga, running(3), rejected('debit', 'no money'), 10)!;
    expect(sends(decision)).toEqual(['undo reserve']);
    expect(decision.state).toMatchObject({ status: 'compensating', reason: 'no money' });
    decision = decide(saga, decision.state, undone('reserve'), 11)!;
    // `check` is done and has no undo: it is passed over.
    expect(sends(decision)).toEqual(['undo hold']);
    decision = decide(saga, decision.state, undone('hold'), 12)!;
    expect(decision.effects).toEqual([{ type: 'cancel-deadline' }]);
    expect(decision.state).toMatchObject({ status: 'compensated', reason: 'no money', updatedAt: 12 });
    expect(statuses(decision.state)).toEqual({
      hold: 'undone',
      check: 'done',
      reserve: 'undone',
      debit: 'rejected',
      credit: 'waiting',
      notify: 'waiting',
    });
  });

  it('G40 ends as rejected when nothing had been done', () => {
    const decision = decide(saga, running(0), rejected('hold', 'unknown account'), 10)!;
    expect(decision.effects).toEqual([{ type: 'cancel-deadline' }]);
    expect(decision.state).toMatchObject({ status: 'rejected', reason: 'unknown account' });
  });

  it('G42 compensates at once when a step failed for technical reasons', () => {
    const decision = decide(saga, running(2), failed('reserve'), 10)!;
    expect(sends(decision)).toEqual(['undo hold']);
    expect(statuses(decision.state)['reserve']).toBe('failed');
    expect(decision.state.reason).toBe('broken');
  });

  it('G43 parks when an undo fails, with both reasons, and sends nothing further', () => {
    const undoing = after(done('hold'), done('check'), done('reserve'), rejected('debit', 'no money'));
    const decision = decide(saga, undoing, reply('reserve', 'undo', 'failed', 'account closed'), 10)!;
    expect(decision.effects).toEqual([{ type: 'cancel-deadline' }]);
    expect(decision.state).toMatchObject({
      status: 'parked',
      reason: 'undo of reserve: account closed (saga: no money)',
    });
    // The undo that remains can be seen.
    expect(statuses(decision.state)).toMatchObject({ reserve: 'failed', hold: 'done' });
  });

  it('G46 fires the deadline after any delay, and undoes what may have happened of the step in flight', () => {
    const decision = decide(saga, running(2), deadline, 10_000_000)!;
    expect(sends(decision)).toEqual(['undo reserve']);
    expect(decision.state).toMatchObject({ status: 'compensating', reason: 'deadline' });
  });

  it('G46 sets the deadline with the start and none without one', () => {
    expect(start(saga, 'id', 500).effects).toEqual([
      { type: 'set-deadline', atMs: 1_500 },
      { type: 'send', step: 'hold', direction: 'do' },
    ] satisfies SagaEffect[]);
    expect(start({ steps: saga.steps }, 'id', 500).effects).toEqual([{ type: 'send', step: 'hold', direction: 'do' }]);
  });

  it('G47 cancels the deadline at every end', () => {
    const ends: (Decision | undefined)[] = [
      decide(saga, running(5), done('notify'), 9),
      decide(saga, running(0), rejected('hold'), 9),
      decide(saga, running(4), rejected('credit'), 9),
      decide(saga, after(done('hold'), rejected('check')), undone('hold'), 9),
    ];
    for (const end of ends) expect(end!.effects).toEqual([{ type: 'cancel-deadline' }]);
  });

  it('G26 lets the first of deadline and reply win, wherever they meet, and never mixes both paths', () => {
    for (let count = 0; count < 3; count++) {
      const state = running(count);
      const step = names[count]!;
      const replyFirst = decide(saga, state, done(step), 10)!;
      expect(sends(replyFirst)).toEqual([`do ${names[count + 1]!}`]);
      const timerFirst = decide(saga, state, deadline, 10)!;
      expect(timerFirst.state.status).toBe('compensating');
      expect(decide(saga, timerFirst.state, done(step), 11)).toBeUndefined();
      expect(decide(saga, timerFirst.state, rejected(step), 11)).toBeUndefined();
      expect(decide(saga, timerFirst.state, deadline, 11)).toBeUndefined();
    }
  });

  it('G23 ignores every reply after completion', () => {
    for (const name of names) {
      expect(decide(saga, running(6), done(name), 99)).toBeUndefined();
      expect(decide(saga, running(6), undone(name), 99)).toBeUndefined();
    }
    expect(decide(saga, running(6), deadline, 99)).toBeUndefined();
  });

  it('G24 ignores the reply of a step that the deadline took back', () => {
    const compensated = after(done('hold'), deadline, undone('hold'));
    expect(compensated.status).toBe('compensated');
    expect(decide(saga, compensated, done('check'), 99)).toBeUndefined();
    const undoing = after(done('hold'), done('check'), deadline);
    expect(decide(saga, undoing, done('reserve'), 99)).toBeUndefined();
    expect(statuses(undoing)).toMatchObject({ reserve: 'undoing', hold: 'done' });
  });

  it('G89 does not compensate once the pivot is in flight or done', () => {
    for (const count of [3, 4, 5]) expect(decide(saga, running(count), deadline, 99)).toBeUndefined();
  });

  it('G90 parks with the reason when a retriable step is refused, and takes nothing back', () => {
    for (const event of [rejected('credit', 'closed'), reply('credit', 'do', 'failed', 'closed')]) {
      const decision = decide(saga, running(4), event, 99)!;
      expect(sends(decision)).toEqual([]);
      expect(decision.state).toMatchObject({ status: 'parked', reason: 'credit: closed' });
      expect(statuses(decision.state)).toMatchObject({ hold: 'done', reserve: 'done', debit: 'done' });
    }
  });

  it('gives the results of the steps to the state', () => {
    expect(after(done('hold', { holdId: 7 })).steps[0]).toEqual({
      name: 'hold',
      status: 'done',
      at: 1,
      result: { holdId: 7 },
    });
  });

  it('always ends and never sends anything twice, on 2,000 random walks', () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
    const random = seededRandom(seed).fraction;
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
    for (let walk = 0; walk < 2_000; walk++) {
      const steps = randomSteps(random);
      let { state, effects } = start(steps, `w${walk}`, 0);
      const sent: string[] = [];
      const inFlight: Reply[] = [];
      const old: SagaEvent[] = [deadline];
      const take = (decided: readonly SagaEffect[]) => {
        for (const effect of decided) {
          if (effect.type !== 'send') continue;
          sent.push(`${effect.direction} ${effect.step}`);
          inFlight.push({ step: effect.step, direction: effect.direction, outcome: 'ok' });
        }
      };
      take(effects);
      for (let now = 1; inFlight.length > 0; now++) {
        // Anything already seen may come again at any time, the deadline at any time too.
        const noise = random() < 0.3;
        const event: SagaEvent = noise
          ? pick(old)
          : {
              type: 'replied',
              reply: { ...inFlight.shift()!, outcome: pick(['ok', 'ok', 'ok', 'rejected', 'failed']) },
            };
        if (!noise) old.push(event);
        const decision = decide(steps, state, event, now);
        if (decision === undefined) continue;
        state = decision.state;
        take(decision.effects);
      }
      const story = `SEED=${seed} walk ${walk}: ${JSON.stringify({ steps: steps.steps, sent, state })}`;
      expect({ open: isOpen(state.status), story }).toEqual({ open: false, story });
      expect({ doubled: sent.length - new Set(sent).size, story }).toEqual({ doubled: 0, story });
      const pivotDone = steps.steps.some(
        (step) => step.kind !== 'compensable' && statuses(state)[step.name] === 'done',
      );
      expect({ undone: pivotDone && sent.some((one) => one.startsWith('undo')), story }).toEqual({
        undone: false,
        story,
      });
      const undos = sent.filter((one) => one.startsWith('undo')).map((one) => one.slice(5));
      const order = steps.steps.map((step) => step.name).filter((name) => undos.includes(name));
      expect({ undos, story }).toEqual({ undos: order.toReversed(), story });
    }
  });
});

function randomSteps(random: () => number): SagaSteps {
  const compensable = Math.floor(random() * 4);
  const pivot = compensable === 0 || random() < 0.7 ? 1 : 0;
  const retriable = Math.floor(random() * 3);
  const step = (kind: SagaSteps['steps'][number]['kind']) => (_: unknown, i: number) => ({
    name: `${kind}${i}`,
    kind,
    undoable: kind === 'compensable' && random() < 0.8,
  });
  return {
    deadlineMs: 100,
    steps: [
      ...Array.from({ length: compensable }, step('compensable')),
      ...Array.from({ length: pivot }, step('pivot')),
      ...Array.from({ length: retriable }, step('retriable')),
    ],
  };
}
