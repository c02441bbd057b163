import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { systemClock } from '../clock/clock.js';
import { ContractError, Rejected } from '../errors/headwater.error.js';
import { produce, textRecord } from '../log/log.testing.js';
import { controlParked, listParked, showParked, type ParkedSequence } from './parked-control.js';
import type { ParkedAct } from './control.js';
import type { ProcessRunner } from './process-runner.js';
import { controlTopicOf } from './processor.js';
import { Scene, messageOf } from './process.testing.js';

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(() => scene.close());

/** Values that throw until they are mended. */
let broken: Set<string>;
const failing = () => ({
  onRecord: (record: { key: Buffer | null; value: Buffer | null }, context: Parameters<typeof scene.count>[2]) => {
    const [key, value] = [record.key?.toString() ?? 'keyless', record.value!.toString()];
    scene.count(key, /^\d+$/.test(value) ? value : '10', context);
    if (broken.has(value)) throw new Error(`${value} is broken`);
  },
});

const brief = ({ key, units }: ParkedSequence) => [
  key,
  ...units.map(
    ({ unit, code }) => `${'record' in unit ? String(unit.record.value) : `timer ${unit.timer.atMs}`} ${code}`,
  ),
];
const ask = (sequence: string, act: ParkedAct) =>
  controlParked(scene.log, { processor: scene.name, sequence, act, reason: 'mended it', by: 'ada' });
const listed = async () => (await listParked(scene.log, scene.name)).map(brief);
const parkingEntries = async (runner: ProcessRunner) =>
  (await runner.tasks.get(0)!.state.dump()).filter(([entry]) => /^[pq]:/.test(entry));

describe('a parked sequence', () => {
  beforeEach(async () => {
    broken = new Set(['first', 'third']);
    await scene.createTopics(1);
  });

  it('S59 is handled again in order when an operator asks, up to the first that fails again, and then flows on', async () => {
    const runner = scene.run(failing());
    await produce(
      scene.log,
      ['1', 'first', '5', 'third', '7'].map((value) => scene.record('a', value)).concat(scene.record('b', '1')),
    );
    await scene.seen({ a: ['1'], b: ['1'] });
    const units = ['first HANDLER_FAILED', '5 KEY_PARKED', 'third KEY_PARKED', '7 KEY_PARKED'];
    expect(await listed()).toEqual([['a', ...units]]);
    expect(await ask('a', { act: 'retry' })).toEqual({
      outcome: 'parked',
      handled: 0,
      dropped: 0,
      left: 4,
      detail: 'first is broken',
    });
    broken.delete('first');
    // Also an instance that did not park it knows all of it.
    await runner.stop();
    const second = scene.run(failing());
    expect(await ask('a', { act: 'retry' })).toMatchObject({ outcome: 'parked', handled: 2, left: 2 });
    await scene.seen({ a: ['1', '11', '16'], b: ['1'] });
    expect(await listed()).toEqual([['a', 'third HANDLER_FAILED', '7 KEY_PARKED']]);
    await produce(scene.log, [scene.record('a', '100'), scene.record('b', '1')]);
    await scene.seen({ a: ['1', '11', '16'], b: ['1', '2'] });
    const edited = await ask('a', { act: 'edit', value: Buffer.from('20') });
    expect(edited).toEqual({ outcome: 'done', handled: 3, dropped: 0, left: 0 });
    await produce(scene.log, [scene.record('a', '1')]);
    await scene.seen({ a: ['1', '11', '16', '36', '43', '143', '144'], b: ['1', '2'] });
    expect(await listed()).toEqual([]);
    expect(await parkingEntries(second)).toEqual([]);
    expect((await scene.parked('hw_act', 'hw_reason', 'hw_by', 'hw_outcome')).filter(([, , act]) => act)).toEqual([
      [expect.any(String), null, 'retry', 'mended it', 'ada', 'parked'],
      [expect.any(String), null, 'retry', 'mended it', 'ada', 'parked'],
      [expect.any(String), '20', 'edit', 'mended it', 'ada', 'done'],
    ]);
  });

  it('drops its first record, or all of it, and refuses what is not there, not named or without a reason', async () => {
    scene.run(failing());
    await produce(
      scene.log,
      ['first', '5', '7'].map((value) => scene.record('a', value)),
    );
    await eventually(async () => expect(await listed()).toHaveLength(1));
    await eventually(async () => expect((await listed())[0]).toHaveLength(4));
    expect(await ask('a', { act: 'discard', all: false })).toMatchObject({ outcome: 'done', dropped: 1, left: 2 });
    expect(await listed()).toEqual([['a', '5 KEY_PARKED', '7 KEY_PARKED']]);
    expect(await ask('a', { act: 'discard', all: true })).toMatchObject({ outcome: 'done', dropped: 2, left: 0 });
    await produce(scene.log, [scene.record('a', '3')]);
    await scene.seen({ a: ['3'] });
    expect(await messageOf(ask('a', { act: 'retry' }))).toMatch(/^PROCESS_NOT_PARKED: .*"a".*headwater parked list/);
    const nobody = { processor: scene.name, sequence: 'a', act: { act: 'retry' }, reason: ' ', by: 'ada' } as const;
    expect(await messageOf(controlParked(scene.log, nobody))).toMatch(/^PROCESS_REASON_MISSING/);
    const foreign = { ...textRecord(controlTopicOf(scene.name), 'a', 'do something'), partition: 0 };
    await produce(scene.log, [foreign, scene.record('a', '1')]);
    await scene.seen({ a: ['3', '4'] });
    expect((await scene.parked('hw_act', 'hw_outcome')).at(-1)).toEqual(['a', 'do something', 'unknown', 'refused']);
  });

  it('is one record alone where it has no key', async () => {
    scene.run(failing());
    await produce(
      scene.log,
      ['first', '5', 'third'].map((value) => scene.record(null, value)),
    );
    await scene.seen({ keyless: ['5'] });
    await eventually(async () => expect(await listed()).toHaveLength(2));
    const [one, other] = await listParked(scene.log, scene.name);
    expect([brief(one!), brief(other!)]).toEqual([
      [undefined, 'first HANDLER_FAILED'],
      [undefined, 'third HANDLER_FAILED'],
    ]);
    broken.clear();
    expect(await ask(other!.sequence, { act: 'retry' })).toMatchObject({ outcome: 'done', handled: 1 });
    await scene.seen({ keyless: ['5', '15'] });
    expect(await listed()).toEqual([[undefined, 'first HANDLER_FAILED']]);
  });

  it('S61 may be a timer: it stays parked, is handled again on request, and is gone when it is set anew', async () => {
    let mended = false;
    let now = 1_000;
    const timers = {
      onRecord: (record: { key: Buffer | null; value: Buffer | null }, context: Parameters<typeof scene.count>[2]) =>
        context.timers.set(record.key!.toString(), Number(String(record.value))),
      onTimer: ({ id, atMs }: { id: string; atMs: number }, context: Parameters<typeof scene.count>[2]) => {
        if (!mended) throw new Rejected('not yet');
        context.send(textRecord(scene.output, id, String(atMs)));
      },
    };
    const clock = { ...systemClock, now: () => now };
    scene.run(timers, { clock });
    await produce(scene.log, [scene.record('a', '2000'), scene.record('b', '2000')]);
    now = 3_000;
    await eventually(async () =>
      expect(await listed()).toEqual([
        ['a', 'timer 2000 REJECTED'],
        ['b', 'timer 2000 REJECTED'],
      ]),
    );
    mended = true;
    expect(await ask(':timer:a', { act: 'retry' })).toMatchObject({ outcome: 'done', handled: 1 });
    await produce(scene.log, [scene.record('b', '4000')]);
    await eventually(async () => expect(await listed()).toEqual([]));
    now = 5_000;
    await scene.seen({ a: ['2000'], b: ['4000'] });
  });

  it('S45 keeps nothing of a record whose output is too large, parks it, and hands it out whole to an operator', async () => {
    let large = true;
    const runner = scene.run({
      onRecord: (record, context) => {
        const [key, value] = [record.key!.toString(), record.value!.toString()];
        scene.count(key, value, context);
        if (value === '5' && large)
          context.send({ ...textRecord(scene.output, key, null), value: Buffer.alloc(2 << 20) });
      },
    });
    const ten = ['1', '1', '1', '1', '5', '1', '1', '1', '1', '1'];
    await produce(
      scene.log,
      ten.map((value, i) => scene.record(i % 2 === 0 ? 'a' : 'b', value)),
    );
    await scene.seen({ a: ['1', '2'], b: ['1', '2', '3', '4', '5'] });
    const units = ['5 RECORD_TOO_LARGE', '1 KEY_PARKED', '1 KEY_PARKED'];
    await eventually(async () => expect(await listed()).toEqual([['a', ...units]]));
    expect(runner.tasks.get(0)!.state.get('s:a')!.toString()).toBe('2');
    // Asked again too early: the order is refused, and what is parked stays as it is.
    expect(await ask('a', { act: 'retry' })).toMatchObject({ outcome: 'refused', left: 3 });
    expect(await listed()).toEqual([['a', ...units]]);
    large = false;
    expect(await ask('a', { act: 'retry' })).toMatchObject({ outcome: 'done', handled: 3 });
    await scene.seen({ a: ['1', '2', '7', '8', '9'], b: ['1', '2', '3', '4', '5'] });
  });

  it('S93 begins with a record that breaks its contract, keeps its bytes and its reason, and holds up no other key', async () => {
    const bytes = Buffer.from([0, 255, 254, 128, 1]);
    const late = new Map<string, number>();
    scene.run({
      onRecord: (record, context) => {
        const key = record.key!.toString();
        if (key === 'other') late.set(record.value!.toString(), Date.now() - record.timestamp);
        try {
          scene.count(key, String(JSON.parse(record.value!.toString('utf8')) as number), context);
        } catch (cause) {
          throw new ContractError('Amount', ['value is not JSON'], cause);
        }
      },
    });
    await produce(scene.log, [scene.record('other', '1')]);
    await scene.seen({ other: ['1'] });
    await produce(scene.log, [
      { ...scene.record('a', null), value: bytes },
      scene.record('a', '2'),
      scene.record('a', '3'),
      scene.record('other', '2'),
    ]);
    await scene.seen({ other: ['1', '3'] });
    expect(late.get('2')).toBeLessThan(1_000);
    const shown = await showParked(scene.log, scene.name, 'a');
    expect(brief(shown).slice(2)).toEqual(['2 KEY_PARKED', '3 KEY_PARKED']);
    const [first] = shown.units;
    expect(first).toMatchObject({
      code: 'CONTRACT_VIOLATED',
      unit: { record: { value: bytes, offset: expect.any(Number) } },
    });
    expect(first!.reason).toContain('value is not JSON');
  });

  it('S59 is not begun under the policy stop: the processor halts loudly before the record, and goes on from it when started again', async () => {
    const stopping = { ...failing(), onFailure: { attempts: 2, finally: 'stop' } } as const;
    const runner = scene.run(stopping);
    await produce(scene.log, [scene.record('a', '1'), scene.record('a', 'first'), scene.record('a', '5')]);
    await scene.status(runner, 'down');
    expect(scene.errors.join()).toMatch(
      /PROCESS_HALTED: .*\/0\/1 cannot be handled: first is broken.*start the processor again/,
    );
    expect(await listed()).toEqual([]);
    broken.clear();
    scene.run(stopping);
    await scene.seen({ a: ['1', '11', '16'] });
    expect(await scene.parked()).toEqual([]);
  });
});
