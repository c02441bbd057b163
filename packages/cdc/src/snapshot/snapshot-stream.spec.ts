import { describe, expect, it } from '@jest/globals';
import { memoryLog } from '@headwater/testing';
import type { CatalogTable } from '../catalog.js';
import { parseLsn } from '../lsn.js';
import { tableShape } from '../rows.js';
import { Chunk } from './chunk.js';
import { progressOf } from './progress.js';
import { signalContent } from './signals.js';
import type { Signal } from './signals.js';
import { newSnapshot, SnapshotRecords } from './snapshot-state.js';
import type { SnapshotState } from './snapshot-state.js';
import { SnapshotStream } from './snapshot-stream.js';
import { parseTxSnapshot } from './tx-snapshot.js';

const KEY = '00ff';
const TOPIC = 'positions';
const LSN = parseLsn('0/100');
const records = new SnapshotRecords(TOPIC, 'bank');
const catalog = [{ spec: { table: 'public.a', topic: 'a' } }] as unknown as CatalogTable[];

function stream(...states: SnapshotState[]): SnapshotStream {
  return new SnapshotStream({
    name: 'bank',
    life: 'life',
    signalKey: KEY,
    records,
    catalog,
    states,
    elapsed: () => 0,
    now: () => 0,
    onChange: () => {},
    onNotice: () => {},
  });
}

const send = (to: SnapshotStream, signal: Signal, key = KEY, name = 'bank') =>
  to.signal(Buffer.from(signalContent(name, key, signal)), LSN);
const ask = (id: string, tables = ['public.a']): Signal => ({ signal: 'snapshot', id, tables, where: null });
const keys = (
  output: { readonly states: readonly { readonly key: Buffer | null; readonly value: Buffer | null }[] } | undefined,
) => output?.states.map(({ key, value }) => `${key?.toString()} ${value === null ? 'gone' : 'set'}`);

/** Has the one range of the one table read, between its marks; `meanwhile` happens when it is planned. */
function readAll(to: SnapshotStream, full = false, meanwhile = () => {}): number {
  const prepare = to.next()!;
  const { run } = prepare.table;
  const ranges = [{ after: null, upTo: null, rows: 0, done: false }];
  to.prepared(prepare, { topicEnds: [0], expectedRows: 1, ranges });
  meanwhile();
  const task = to.next()!;
  if (task.step.step !== 'read') throw new Error('not read');
  const id = to.open(task.table);
  to.watermark(Buffer.from(to.mark(id, 'low')), LSN);
  const chunk = new Chunk(
    tableShape({ table: 'public.a', topic: 'a' }, [{ name: 'id', encode: (text) => text }], ['id']),
    1,
  );
  chunk.add(Buffer.from('1\n'));
  run.endRead(0, task.step.generation, { last: chunk.last, full });
  to.wait(id, { kind: 'chunk', of: task.of, table: task.table, range: 0, chunk, full }, parseTxSnapshot('9:9:'));
  return id;
}

describe('SnapshotStream', () => {
  it('is active while a snapshot is unfinished and not paused', () => {
    const to = stream();
    expect(to.active).toBe(false);
    expect(keys(send(to, ask('x')))).toEqual(['bank/snapshot/x set', 'bank/snapshot/x/public.a set']);
    expect([to.active, to.ids]).toEqual([true, ['x']]);
    expect(keys(send(to, { signal: 'pause', id: 'x' }))).toEqual(['bank/snapshot/x set']);
    expect([to.active, to.next()]).toEqual([false, undefined]);
    send(to, { signal: 'resume', id: 'x' });
    expect([to.active, to.next()?.step]).toEqual([true, { step: 'prepare' }]);
    expect(send(to, ask('x'))).toMatchObject({ states: [], snapshots: ['x'] });
    expect(keys(send(to, { signal: 'stop', id: 'x' }))).toEqual([
      'bank/snapshot/x gone',
      'bank/snapshot/x/public.a gone',
    ]);
    expect(to.active).toBe(false);
    expect(send(to, { signal: 'stop', id: 'x' })).toMatchObject({ states: [], snapshots: [] });
  });

  it('N10 obeys only what is signed with its key, for its tables and under no name of its own', () => {
    const to = stream();
    const refused = /the signal at 0\/100 is refused/;
    expect(send(to, ask('x'), KEY, 'other')).toBeUndefined();
    for (const attempt of [
      () => send(to, ask('x'), '00fe'),
      () => send(to, ask('x', ['public.b'])),
      () => send(to, ask('initial')),
      () => to.signal(Buffer.from(signalContent('bank', KEY, ask('x')).replace('public.a', 'public.z')), LSN),
    ])
      expect(attempt).toThrow(refused);
    expect(to.ids).toEqual([]);
  });

  it('N1 N4 publishes a chunk at its high mark, with the cursor, and N5 at no other', () => {
    const to = stream(newSnapshot('x', ['public.a']));
    const id = readAll(to, true);
    const foreign = to.mark(id, 'high').replace('life', 'past');
    expect(to.watermark(Buffer.from(foreign), LSN)).toBeUndefined();
    const output = to.watermark(Buffer.from(to.mark(id, 'high')), LSN)!;
    const rows: unknown[] = [];
    output.emit({ add: (record) => rows.push(record.key?.toString()) });
    expect([rows, keys(output), output.snapshots]).toEqual([['1'], ['bank/snapshot/x/public.a set'], ['x']]);
    expect(JSON.parse(output.states[0]!.value!.toString())).toMatchObject({
      plan: { ranges: [{ after: ['1'], rows: 1 }] },
    });
    expect(to.watermark(Buffer.from(to.mark(id, 'high')), LSN)).toBeUndefined();
  });

  it.each<[string, string[], string[] | undefined, string[]]>([
    ['the rest of the snapshot', [], ['1'], []],
    ['a changed key', ['changed'], [], []],
    ['TRUNCATE', ['disturbed'], undefined, ['x']],
    ['a pause', ['pause'], undefined, ['x']],
    ['a commit told before and not seen', ['behind'], undefined, ['x']],
  ])('leaves of a chunk with %s between the marks what may be published', (_, steps, expected, left) => {
    const to = stream(newSnapshot('x', ['public.a']));
    if (steps.includes('behind')) to.begin(12);
    const id = readAll(to);
    if (steps.includes('changed')) to.changed('public.a', '1', true);
    if (steps.includes('disturbed')) to.disturbed('public.a');
    if (steps.includes('pause')) send(to, { signal: 'pause', id: 'x' });
    const output = to.watermark(Buffer.from(to.mark(id, 'high')), LSN);
    const rows: unknown[] = [];
    output?.emit({ add: (record) => rows.push(record.key?.toString()) });
    expect([output && rows, to.ids]).toEqual([expected, left]);
  });

  it('N12 tells a row once where capture needs the snapshot, and again where it was asked for', () => {
    const told = (whole: boolean) => (to: SnapshotStream) => to.changed('public.a', '1', whole);
    for (const [id, early, meanwhile, expected] of [
      ['initial', () => {}, told(true), []],
      ['initial', () => {}, told(false), ['1']],
      ['initial', told(true), () => {}, ['1']],
      ['added-1', told(true), () => {}, []],
      ['x', () => {}, told(true), ['1']],
    ] as const) {
      const made = newSnapshot(id, ['public.a']);
      // Of an added table the ends of the topic are known from the start here.
      const ends = id === 'added-1' ? { topicEnds: [0] } : {};
      const to = stream({ ...made, tables: made.tables.map((table) => ({ ...table, ...ends })) });
      early(to);
      const window = readAll(to, false, () => meanwhile(to));
      const rows: unknown[] = [];
      to.watermark(Buffer.from(to.mark(window, 'high')), LSN)!.emit({
        add: (record) => rows.push(record.key?.toString()),
      });
      expect(rows).toEqual(expected);
      expect(to.watches('public.a')).toBe(false);
    }
  });

  it('begins anew rather than remember transactions without end', () => {
    const to = stream(newSnapshot('x', ['public.a']));
    readAll(to);
    for (let xid = 100; xid <= 1_000_200; xid++) to.begin(xid);
    expect([to.waiting, to.next()?.step]).toEqual([0, { step: 'prepare' }]);
  });
});

describe('SnapshotRecords', () => {
  it('finds the states of unfinished snapshots, however far back, and misses none in silence', async () => {
    const { log } = memoryLog().client();
    await log.admin.ensureTopics([{ topic: TOPIC, partitions: 1, cleanupPolicy: 'compact' }]);
    const writer = log.writer({ transactionalId: 't' });
    await writer.fence();
    const state = newSnapshot('x', ['public.a', 'public.b'], 'id > 1');
    await writer.transact(records.begun(state));
    for (let i = 0; i < 3; i++) {
      const noise = Array.from({ length: 1_000 }, () => ({
        topic: TOPIC,
        partition: 0,
        key: Buffer.from('bank'),
        value: Buffer.from('{}'),
      }));
      await writer.transact(noise);
    }
    expect(await records.read(log, ['x'])).toEqual([state]);
    expect(await records.read(log, [])).toEqual([]);
    await expect(records.read(log, ['x', 'y'])).rejects.toMatchObject({ code: 'CDC_POSITION_INVALID' });
    await writer.transact(records.over(state));
    await expect(records.read(log, ['x'])).rejects.toMatchObject({ facts: { key: 'bank/snapshot/x' } });
    await writer.close();
  });
});

describe('progressOf', () => {
  const table = (rows: number, expectedRows: number, done = false) => ({
    table: 'public.a',
    plan: { topicEnds: [], expectedRows, ranges: [{ after: null, upTo: null, rows, done }] },
    done,
  });
  const of = (...tables: SnapshotState['tables']): SnapshotState => ({ ...newSnapshot('x', []), tables });

  it('tells rows, percent and time left, and 100 percent only in the end', () => {
    expect(progressOf(of(table(50, 200)), 50, 1_000)).toMatchObject({ rows: 50, percent: 25, secondsLeft: 3 });
    // More rows than expected, and not done.
    expect(progressOf(of(table(500, 200)), 500, 1_000)).toMatchObject({ percent: 99, secondsLeft: 1 });
    expect(progressOf(of(table(300, 200, true), table(0, 100)), 0, 0)).toMatchObject({
      percent: 75,
      secondsLeft: undefined,
    });
    expect(progressOf(of(table(300, 200, true)), 300, 1)).toMatchObject({ percent: 100, secondsLeft: 0 });
    expect(progressOf(of({ table: 'public.a', plan: null, done: false }), 0, 0)).toMatchObject({ percent: undefined });
    expect(progressOf({ ...of(table(50, 200)), paused: true }, 50, 9)).toMatchObject({
      state: 'paused',
      secondsLeft: undefined,
    });
  });
});
