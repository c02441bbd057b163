import { describe, expect, it } from '@jest/globals';
import { parseLsn } from './lsn.js';
import type { Position } from './position.js';
import { planResume } from './verify-slot.js';
import type { ServerFacts } from './verify-slot.js';

const position: Position = {
  phase: 'streaming',
  systemId: '1',
  timeline: 1,
  slot: 's',
  publication: 5,
  commitLsn: parseLsn('0/100'),
  endLsn: parseLsn('0/200'),
  xid: 1,
  keys: { 'public.a': ['id'] },
  snapshots: [],
};
const slot = {
  confirmedFlushLsn: parseLsn('0/200'),
  walStatus: 'reserved',
  invalidationReason: null,
  activePid: null,
  plugin: 'pgoutput',
};
const server: ServerFacts = {
  systemId: '1',
  timeline: 1,
  timelineSwitch: undefined,
  maxSlotWalKeepSize: '64MB',
  slot,
  publication: 5,
};
const wanted = { slot: 's', publication: 'p', snapshot: 'initial', keys: position.keys } as const;

describe('planResume', () => {
  it('resumes when slot and position fit', () => {
    expect(planResume(wanted, server, position, false)).toEqual({ kind: 'resume', position, added: [] });
  });

  it('snapshots a table that is new, unless it is to capture changes only', () => {
    const more = { ...wanted, keys: { ...wanted.keys, 'public.b': ['id'] } };
    expect(planResume(more, server, position, false)).toMatchObject({ kind: 'resume', added: ['public.b'] });
    expect(planResume({ ...more, snapshot: 'never' }, server, position, false)).toMatchObject({ added: [] });
  });

  it('ends a snapshot only when none is unfinished, whatever of slot and publication is gone', () => {
    const only = { ...wanted, snapshot: 'only' } as const;
    const unfinished = { ...position, snapshots: ['initial'] };
    expect(planResume(only, server, unfinished, false).kind).toBe('resume');
    expect(planResume(only, { ...server, slot: undefined }, unfinished, false).kind).toBe('snapshot');
    expect(planResume(only, { ...server, slot: undefined, publication: undefined }, position, false).kind).toBe(
      'finish',
    );
    expect(planResume(only, server, { ...position, phase: 'done' }, false).kind).toBe('finished');
  });

  it('waits for a slot that another connection holds', () => {
    const held = { ...server, slot: { ...slot, activePid: 42 } };
    expect(planResume(wanted, held, position, false)).toEqual({ kind: 'busy', pid: 42 });
    expect(planResume(wanted, held, position, true).kind).toBe('resume');
  });

  it.each([
    ['CDC_SLOT_LOST', { slot: { ...slot, walStatus: 'lost' } }, /wal_status=lost.*max_slot_wal_keep_size=64MB/],
    ['CDC_SLOT_MISSING', { slot: undefined }, /0\/200/],
    ['CDC_SLOT_AHEAD', { slot: { ...slot, confirmedFlushLsn: parseLsn('0/201') } }, /0\/201.*0\/200/],
    ['CDC_OTHER_CLUSTER', { systemId: '2' }, /cluster 2.*cluster 1/],
    ['CDC_TIMELINE_DIVERGED', { timeline: 2, timelineSwitch: parseLsn('0/1FF') }, /timeline 2 .*0\/1FF.*0\/200/],
    ['CDC_PUBLICATION_MISSING', { publication: 6 }, /made again/],
  ] as const)('%s is refused with its facts, or leads to a snapshot when needed', (code, facts, message) => {
    const changed: ServerFacts = { ...server, ...facts };
    expect(planResume(wanted, changed, position, false)).toMatchObject({
      kind: 'refused',
      error: { code, message: expect.stringMatching(message) },
    });
    expect(planResume({ ...wanted, snapshot: 'when-needed' }, changed, position, false)).toMatchObject({
      kind: 'snapshot',
      because: { code },
    });
  });
});
