import { expect, it } from '@jest/globals';
import { memoryLog } from '@headwater/testing';
import type { SnapshotWindow } from './snapshot-window.js';
import { Truncations } from './truncation.js';

it('tells snapshots what they would hear without it, rows with values left out as such', () => {
  const told: unknown[] = [];
  const window: SnapshotWindow = {
    active: true,
    begin: (xid) => told.push(xid),
    watches: (table) => table === 'public.a',
    changed: (...of) => told.push(of),
    disturbed: (table) => told.push(table),
    watermark: () => undefined,
    signal: () => undefined,
  };
  const ports = {
    log: memoryLog().client().log,
    settle: async () => {},
    committedEnd: () => undefined,
    signal: new AbortController().signal,
    makeRoom: async () => {},
    parkedPlaces: () => [],
  };
  const watching = new Truncations('tombstones', ports).watching(window);
  watching.begin(7);
  watching.changed('public.a', '1', false);
  watching.changed('public.a', '2', true);
  watching.changed('public.b', '3', true);
  expect(told).toEqual([7, ['public.a', '1', false], ['public.a', '2', true]]);
});
