import { describe, expect, it } from '@jest/globals';
import { HeadwaterError } from '@headwater/core';
import { CaptureError } from './cdc.errors.js';
import { parseLsn, ZERO_LSN } from './lsn.js';
import { IDLE, next } from './machine.js';
import type {
  Effect,
  EventName,
  MachineEvent,
  MachineOptions,
  MachineState,
  Preparation,
  StateName,
  StateOf,
  Survey,
} from './machine-states.js';
import type { Position } from './position.js';

const MODES = ['initial', 'never', 'only', 'when-needed'] as const;
const options = (snapshot: MachineOptions['snapshot']): MachineOptions => ({
  name: 'bank',
  slot: 's',
  publication: 'p',
  snapshot,
});
const tally = { failures: 0, waits: 0, reconnects: 0 };
const keys = { 'public.a': ['id'] };

const position: Position = {
  phase: 'streaming',
  systemId: '1',
  timeline: 1,
  slot: 's',
  publication: 5,
  commitLsn: parseLsn('0/100'),
  endLsn: parseLsn('0/200'),
  xid: 1,
  keys,
  snapshots: [],
};
const slot = {
  confirmedFlushLsn: parseLsn('0/200'),
  walStatus: 'reserved',
  invalidationReason: null,
  activePid: null,
  plugin: 'pgoutput',
};
const server = {
  systemId: '1',
  timeline: 1,
  timelineSwitch: undefined,
  maxSlotWalKeepSize: '-1',
  slot,
  publication: 5,
};
/** What a look may find: everything planResume tells apart. */
const SURVEYS: Readonly<Record<string, Survey>> = {
  fits: { server, position, keys },
  nothing: { server: { ...server, slot: undefined, publication: undefined }, position: undefined, keys },
  'slot without position': { server, position: undefined, keys },
  'half a snapshot': { server, position: { ...position, phase: 'snapshot', endLsn: ZERO_LSN }, keys },
  'whole snapshot': { server, position: { ...position, phase: 'done' }, keys },
  'snapshot unfinished': { server, position: { ...position, snapshots: ['initial'] }, keys },
  'table added': { server, position, keys: { ...keys, 'public.b': ['id'] } },
  'slot held by another': { server: { ...server, slot: { ...slot, activePid: 7 } }, position, keys },
  'slot ahead': { server: { ...server, slot: { ...slot, confirmedFlushLsn: parseLsn('0/201') } }, position, keys },
  'slot gone': { server: { ...server, slot: undefined }, position, keys },
  'another cluster': { server: { ...server, systemId: '2' }, position, keys },
};

const lost = Object.assign(new Error('connection reset'), { code: 'ECONNRESET' });
const busy = Object.assign(new Error('slot "s" is active for PID 7'), { code: '55006' });
const fenced = new CaptureError('CDC_FENCED', 'another capture took over');
const gone = Object.assign(new Error('replication slot "s" does not exist'), { code: '42704' });
const away = new HeadwaterError('KAFKA_UNREACHABLE', 'no broker answers', { retryable: true });
const unknown = new CaptureError('CDC_PUBLISH_FAILED', 'the log transaction ended unknown', { outcome: 'unknown' });
const failures: readonly MachineEvent[] = [lost, busy, gone, fenced, away, unknown].map((error) => ({
  name: 'failed',
  error,
}));
const made = { lsn: parseLsn('0/300') };

const EVENTS: { readonly [E in EventName]: readonly MachineEvent[] } = {
  start: [{ name: 'start' }],
  stop: [{ name: 'stop' }],
  connected: [{ name: 'connected' }],
  surveyed: Object.values(SURVEYS).map((survey) => ({ name: 'surveyed', ...survey })),
  locked: [true, false].map((held) => ({ name: 'locked', held })),
  acquired: [{ name: 'acquired' }],
  fenced: [{ name: 'fenced' }],
  prepared: [{ name: 'prepared', publication: 5, slot: made }],
  progressed: [{ name: 'progressed' }],
  snapshotsOver: [{ name: 'snapshotsOver' }],
  drained: [{ name: 'drained' }],
  failed: failures,
  disconnected: [{ name: 'disconnected' }],
  woke: [{ name: 'woke' }],
};

/** Which events each state is for; every other one is a defect and halts. */
const EXPECTED: Readonly<Record<StateName, readonly EventName[]>> = {
  idle: ['start', 'stop'],
  connecting: ['start', 'stop', 'connected', 'failed'],
  verifying: ['start', 'stop', 'surveyed', 'failed'],
  locking: ['start', 'stop', 'locked', 'failed'],
  acquiring: ['start', 'stop', 'acquired', 'failed'],
  fencing: ['start', 'stop', 'fenced', 'failed'],
  holding: ['start', 'stop', 'woke', 'failed'],
  preparing: ['start', 'stop', 'prepared', 'failed'],
  streaming: ['start', 'stop', 'progressed', 'snapshotsOver', 'failed'],
  draining: ['start', 'stop', 'progressed', 'snapshotsOver', 'drained', 'failed'],
  closing: Object.keys(EVENTS) as EventName[],
  waiting: ['start', 'stop', 'woke', 'failed'],
  retrying: ['start', 'stop', 'woke', 'failed'],
  stopped: ['start', 'stop'],
  halted: ['start', 'stop'],
};

const preparation: Preparation = {
  plan: 'create',
  steps: ['position'],
  ...SURVEYS['nothing']!,
  publication: 5,
  slot: made,
  begins: undefined,
};
const STATES: { readonly [S in StateName]: StateOf<S> } = {
  idle: { name: 'idle', tally },
  connecting: { name: 'connecting', tally },
  verifying: { name: 'verifying', tally, hold: 'slot' },
  locking: { name: 'locking', tally },
  acquiring: { name: 'acquiring', tally },
  fencing: { name: 'fencing', tally, hold: 'slot', spent: false },
  holding: { name: 'holding', tally, spent: true },
  preparing: { name: 'preparing', tally, ...preparation },
  streaming: { name: 'streaming', tally },
  draining: { name: 'draining', tally, next: 'stop' },
  closing: { name: 'closing', tally, after: { do: 'again' } },
  waiting: { name: 'waiting', tally },
  retrying: { name: 'retrying', tally },
  stopped: { name: 'stopped', tally },
  halted: { name: 'halted', tally, error: lost },
};

/** Effects that are answered, and by what besides `failed`. `drain` only hurries the answer of `stream`. */
const ANSWERS: Readonly<Record<string, readonly EventName[]>> = {
  connect: ['connected'],
  survey: ['surveyed'],
  lock: ['locked'],
  acquire: ['acquired'],
  fence: ['fenced'],
  publication: ['prepared'],
  write: ['prepared'],
  'drop-slot': ['prepared'],
  'create-slot': ['prepared'],
  'drop-publication': ['prepared'],
  stream: ['progressed', 'snapshotsOver'],
  disconnect: ['disconnected'],
  sleep: ['woke'],
  hold: ['woke'],
};
/** After these the question is still open. */
const UNANSWERED = new Set<EventName>(['start', 'stop', 'progressed', 'snapshotsOver']);

const isDefect = (effects: readonly Effect[]): boolean =>
  effects.some((of) => of.do === 'report' && (of.error as CaptureError).code === 'CDC_STATE_INVALID');

describe('machine', () => {
  it.each(Object.keys(STATES) as StateName[])('in state %s knows what to do about every event', (name) => {
    for (const mode of MODES) {
      const handled = Object.entries(EVENTS).filter(([, variants]) =>
        variants.every((event) => {
          const { state, effects } = next(options(mode), STATES[name], event);
          // A defect is told, and everything is given up.
          if (isDefect(effects))
            expect([state.name, effects.at(-1)!.do, effects.length]).toEqual(['closing', 'disconnect', 2]);
          return !isDefect(effects);
        }),
      );
      expect(handled.map(([event]) => event)).toEqual(
        Object.keys(EVENTS).filter((of) => EXPECTED[name].includes(of as EventName)),
      );
    }
  });

  it.each(MODES)('with snapshot %s keeps its invariants on every path', (mode) => {
    const reached = walk(mode);
    expect([...reached].toSorted()).toEqual(Object.keys(STATES).toSorted());
  });

  it('looks again when slot or publication are gone in the middle, and refuses nothing before the fence but another cluster', () => {
    const after = (state: MachineState, event: MachineEvent) => next(options('initial'), state, event).state;
    for (const state of [STATES.acquiring, STATES.streaming])
      expect(after(state, { name: 'failed', error: gone })).toMatchObject({ name: 'closing', after: { do: 'retry' } });
    expect(after(STATES.fencing, { name: 'failed', error: gone })).toMatchObject({ after: { do: 'halt' } });
    const looked = (hold: StateOf<'verifying'>['hold'], survey: Survey) =>
      after({ ...STATES.verifying, hold }, { name: 'surveyed', ...survey });
    expect(looked('nothing', SURVEYS['slot ahead']!)).toMatchObject({ name: 'locking' });
    expect(looked('lock', SURVEYS['slot ahead']!)).toMatchObject({ name: 'fencing' });
    for (const hold of ['fenced lock', 'slot'] as const)
      expect(looked(hold, SURVEYS['slot ahead']!)).toMatchObject({ after: { error: { code: 'CDC_SLOT_AHEAD' } } });
    expect(looked('nothing', SURVEYS['another cluster']!)).toMatchObject({
      after: { error: { code: 'CDC_OTHER_CLUSTER' } },
    });
  });

  it('S8 keeps the slot while the log fails, and never publishes from a stream that was read from before', () => {
    const after = (state: MachineState, event: MachineEvent) => next(options('initial'), state, event).state;
    for (const error of [away, unknown]) {
      const held = after(STATES.streaming, { name: 'failed', error });
      expect(held).toMatchObject({ name: 'holding', spent: true });
      const again = after(after(held, { name: 'woke' }), { name: 'failed', error });
      expect(again).toMatchObject({ name: 'holding', spent: true });
      const fenced = after(after(again, { name: 'woke' }), { name: 'fenced' });
      expect(fenced).toMatchObject({ name: 'closing', after: { do: 'again' } });
      expect(after(again, { name: 'failed', error: lost })).toMatchObject({ name: 'closing', after: { do: 'retry' } });
      for (const state of [STATES.fencing, STATES.verifying, { ...STATES.preparing, plan: 'resume' as const }]) {
        const unread = after(state, { name: 'failed', error });
        expect(unread).toMatchObject({ name: 'holding', spent: false });
        expect(after(after(unread, { name: 'woke' }), { name: 'fenced' })).toMatchObject({ name: 'verifying' });
      }
      for (const state of [STATES.connecting, { ...STATES.fencing, hold: 'lock' as const }, STATES.preparing])
        expect(after(state, { name: 'failed', error })).toMatchObject({ name: 'closing', after: { do: 'retry' } });
    }
  });

  it('backs off from 0.1 to 5 s while it fails, and from 50 to 800 ms while another has the slot', () => {
    const pauses = (error: unknown) => {
      let state: MachineState = IDLE;
      const found: number[] = [];
      for (let n = 0; n < 8; n++) {
        state = next(options('initial'), { ...STATES.connecting, tally: state.tally }, { name: 'failed', error }).state;
        const { state: paused, effects } = next(options('initial'), state, { name: 'disconnected' });
        state = paused;
        for (const effect of effects) if (effect.do === 'sleep') found.push(effect.ms);
      }
      return found;
    };
    expect(pauses(lost)).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    expect(pauses(busy)).toEqual([50, 100, 200, 400, 800, 800, 800, 800]);
    const progressed = next(
      options('initial'),
      { ...STATES.streaming, tally: { failures: 9, waits: 9, reconnects: 3 } },
      { name: 'progressed' },
    );
    expect(progressed.state.tally).toEqual({ failures: 0, waits: 0, reconnects: 3 });
  });
});

/** What is true of the world after the effects so far, as far as the machine can know. */
interface World {
  readonly asked: Effect['do'] | undefined;
  readonly slot: boolean;
  readonly lock: boolean;
  readonly fenced: boolean;
  /** The stream of this connection was read from. */
  readonly spent: boolean;
  /** The last look was taken after the fence. */
  readonly looked: boolean;
  readonly stopping: boolean;
  readonly ended: number;
}

/** Every path of answers, failures and stops from `idle`. Returns the states met; throws where an invariant is broken. */
function walk(mode: MachineOptions['snapshot']): ReadonlySet<StateName> {
  const none: World = {
    asked: undefined,
    slot: false,
    lock: false,
    fenced: false,
    spent: false,
    looked: false,
    stopping: false,
    ended: 0,
  };
  const seen = new Set<string>();
  const reached = new Set<StateName>();
  const left: { readonly state: MachineState; readonly world: World; readonly path: string }[] = [
    { state: IDLE, world: none, path: '' },
  ];
  for (let at = left.pop(); at !== undefined; at = left.pop()) {
    reached.add(at.state.name);
    for (const event of possible(at.state, at.world)) {
      const path = `${at.path} ${event.name}`;
      const { state, effects } = next(options(mode), at.state, event);
      if (isDefect(effects)) throw new Error(`defect after${path}`);
      let world = learned(at.world, event);
      for (const effect of effects) world = performed(world, effect, path);
      if ((world.asked === undefined) !== ['idle', 'stopped', 'halted'].includes(state.name))
        throw new Error(`${state.name} waits for ${world.asked ?? 'nothing'} after${path}`);
      if (world.stopping && !['draining', 'closing', 'stopped', 'halted'].includes(state.name))
        throw new Error(`${state.name} although stopped, after${path}`);
      // How often something was tried changes pauses only.
      const capped = { ...state, tally };
      const id = JSON.stringify([capped, world], (_, value: unknown) =>
        typeof value === 'bigint' ? String(value) : value,
      );
      if (seen.has(id)) continue;
      seen.add(id);
      left.push({ state, world, path });
    }
  }
  return reached;
}

function possible(state: MachineState, world: World): readonly MachineEvent[] {
  if (state.name === 'idle') return [...EVENTS.start, ...EVENTS.stop];
  if (world.asked === undefined) return [...EVENTS.start, ...EVENTS.stop];
  const answers = ANSWERS[world.asked]!.flatMap((name) => EVENTS[name]);
  const failing = world.asked === 'disconnect' ? [] : failures;
  const drained = state.name === 'draining' ? EVENTS.drained : [];
  return [...EVENTS.stop, ...answers, ...failing, ...drained];
}

function learned(world: World, event: MachineEvent): World {
  const asked = UNANSWERED.has(event.name) ? world.asked : undefined;
  switch (event.name) {
    case 'stop':
      return { ...world, asked, stopping: true };
    case 'locked':
      return { ...world, asked, lock: event.held };
    case 'acquired':
      return { ...world, asked, slot: true };
    case 'fenced':
      return { ...world, asked, fenced: true, looked: false };
    case 'surveyed':
      return { ...world, asked, looked: world.fenced };
    case 'disconnected':
      return { ...world, asked, slot: false, lock: false, fenced: false, spent: false, looked: false };
    default:
      return { ...world, asked };
  }
}

function performed(world: World, effect: Effect, path: string): World {
  const wrong = (what: string): never => {
    throw new Error(`${effect.do} ${what} after${path}`);
  };
  if (world.ended > 0) wrong('after the end');
  if (effect.do === 'end') return { ...world, ended: world.ended + 1 };
  if (effect.do === 'disconnect') return { ...world, asked: effect.do };
  if (!(effect.do in ANSWERS)) return world;
  if (world.asked !== undefined) wrong(`while ${world.asked} is under way`);
  if (effect.do === 'fence' && !world.slot && !world.lock) wrong('without slot or lock');
  if (
    ['publication', 'write', 'drop-slot', 'drop-publication', 'create-slot', 'stream'].includes(effect.do) &&
    !world.looked
  )
    wrong('without a look after the fence');
  if (['stream', 'hold'].includes(effect.do) && !world.slot) wrong('without the slot');
  if (effect.do === 'stream' && world.spent) wrong('twice on one connection');
  if (effect.do === 'write' && !world.lock && !world.slot) wrong('without lock or slot');
  if (['drop-slot', 'drop-publication', 'create-slot'].includes(effect.do) && !world.lock) wrong('without the lock');
  return { ...world, asked: effect.do, spent: world.spent || effect.do === 'stream' };
}
