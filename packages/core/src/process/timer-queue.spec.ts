import { describe, expect, it } from '@jest/globals';
import { TimerQueue } from './timer-queue.js';

describe('TimerQueue', () => {
  it('gives what is due in order of time, then id, and keeps it', () => {
    const queue = new TimerQueue();
    for (const [id, atMs] of [
      ['b', 20],
      ['a', 20],
      ['c', 10],
      ['d', 30],
    ] as const)
      queue.set(id, atMs);
    const due = [
      { id: 'c', atMs: 10 },
      { id: 'a', atMs: 20 },
      { id: 'b', atMs: 20 },
    ];
    expect(queue.due(20)).toEqual(due);
    expect(queue.due(20)).toEqual(due);
    expect(queue.nextAt()).toBe(10);
  });

  it('agrees with a sorted list over random sets, moves and cancels', () => {
    let state = 7;
    const below = (limit: number) => (state = (state * 48271) % 2147483647) % limit;
    const queue = new TimerQueue();
    const model = new Map<string, number>();
    for (let step = 0; step < 20_000; step++) {
      const id = `timer-${below(200)}`;
      if (below(4) === 0) {
        queue.cancel(id);
        model.delete(id);
      } else {
        const atMs = below(50);
        queue.set(id, atMs);
        model.set(id, atMs);
      }
      if (step % 50 > 0) continue;
      const now = below(50);
      const wanted = [...model]
        .filter(([, atMs]) => atMs <= now)
        .map(([timer, atMs]) => ({ id: timer, atMs }))
        .sort((a, b) => a.atMs - b.atMs || (a.id < b.id ? -1 : 1));
      expect(queue.due(now)).toEqual(wanted);
      expect(queue.nextAt()).toBe(model.size > 0 ? Math.min(...model.values()) : undefined);
    }
  });
});
