import { describe, expect, it } from '@jest/globals';
import { TableRun } from './table-run.js';
import type { RangeState, TablePlan } from './snapshot-state.js';

const range = (after: string | null, upTo: string | null): RangeState => ({
  after: after === null ? null : [after],
  upTo: upTo === null ? null : [upTo],
  rows: 0,
  done: false,
});
const plan = (...ranges: RangeState[]): TablePlan => ({ topicEnds: [0], expectedRows: 100, ranges });

function prepared(...ranges: RangeState[]): TableRun {
  const run = new TableRun({ table: 'public.a', plan: null, done: false });
  expect(run.next(0)).toEqual({ step: 'prepare' });
  run.begin();
  expect(run.next(0)).toBeUndefined();
  run.prepared(plan(...ranges));
  run.end();
  return run;
}

/** One worker reads the next chunk; returns what publishes it. */
function read(run: TableRun, last: string | null, full = true, now = 0) {
  const step = run.next(now);
  if (step?.step !== 'read') throw new Error(`next is ${JSON.stringify(step)}`);
  run.beginRead(step.range, step);
  const chunk = { last: last === null ? null : [last], full, rows: 10 };
  const kept = run.endRead(step.range, step.generation, chunk);
  run.letGo(step.range, step);
  return { step, kept, publish: () => run.published(step.range, chunk) };
}

describe('TableRun', () => {
  it('reads ahead of what is published, two chunks of a range and no more', () => {
    const run = prepared(range(null, '50'), range('50', null));
    const [one, two] = [read(run, '10'), read(run, '20')];
    expect([one.step.after, two.step.after, two.step.range]).toEqual([null, ['10'], 0]);
    const [three, four] = [read(run, '60'), read(run, '70')];
    expect([three.step.range, three.step.after, four.step.after]).toEqual([1, ['50'], ['60']]);
    expect(run.next(0)).toBeUndefined();
    one.publish();
    expect(run.state.plan!.ranges[0]).toMatchObject({ after: ['10'], rows: 10, done: false });
    expect(read(run, null, false).step.after).toEqual(['20']);
    expect(run.next(0)).toBeUndefined();
  });

  it('is read when every range has brought a chunk that was not full', () => {
    const run = prepared(range(null, null));
    read(run, '5', false).publish();
    expect(run.state.plan!.ranges).toEqual([{ after: ['5'], upTo: null, rows: 10, done: true }]);
    expect(run.next(0)).toEqual({ step: 'leftovers' });
    run.finished();
    expect(run.next(0)).toBeUndefined();
  });

  it('N8 goes back to what is published, with all that was read since, later each time', () => {
    const run = prepared(range(null, null));
    read(run, '10').publish();
    read(run, '20');
    const step = run.next(0)!;
    if (step.step !== 'read') throw new Error('not read');
    run.beginRead(0, step);
    run.goBack(0, 100);
    expect(run.endRead(0, step.generation, { last: ['30'], full: true })).toBe(false);
    expect(run.next(100)).toBeUndefined();
    run.letGo(0, step);
    expect(run.next(100)).toMatchObject({ step: 'read', after: ['10'] });
    run.goBack(0, 100);
    expect([run.next(100), run.dueAfter(100)]).toEqual([undefined, 105]);
    expect(run.next(105)).toMatchObject({ step: 'read', after: ['10'] });
  });

  it('N3 is prepared anew after it was given up, and takes nothing from a read that began before', () => {
    const run = prepared(range(null, null));
    const step = run.next(0)!;
    if (step.step !== 'read') throw new Error('not read');
    run.beginRead(0, step);
    run.giveUp();
    expect(run.next(0)).toEqual({ step: 'prepare' });
    run.prepared(run.state.plan!);
    const next = run.next(0)!;
    run.beginRead(0, next);
    run.letGo(0, step);
    // The other one still reads.
    expect(run.next(0)).toBeUndefined();
    expect(run.endRead(0, step.generation, { last: ['1'], full: true })).toBe(false);
  });
});
