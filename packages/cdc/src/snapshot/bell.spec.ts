import { getEventListeners, setMaxListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, describe, it } from '@jest/globals';
import { systemClock } from '@headwater/core';
import { Bell } from './bell.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

describe('Bell', () => {
  it('wakes by a ring since the ticket was taken, by time and by the signal', async () => {
    const bell = new Bell();
    const stop = new AbortController();
    const since = (ticket: number, ms?: number) => bell.since(ticket, systemClock, ms, stop.signal);
    const ticket = bell.ticket;
    bell.ring();
    await since(ticket);
    await since(bell.ticket, 1);
    const rung = since(bell.ticket);
    bell.ring();
    await rung;
    const stopped = since(bell.ticket);
    stop.abort();
    await stopped;
    await since(bell.ticket);
  });

  it('leaves no listener behind on a signal that lives long, also when the garbage collector runs in between', async () => {
    const bell = new Bell();
    const { signal } = new AbortController();
    setMaxListeners(0, signal);
    for (let i = 0; i < 3; i++) {
      const waits = [undefined, 60_000, 1].map((ms) => bell.since(bell.ticket, systemClock, ms, signal));
      // What was referred to weakly in this turn of the event loop stays until its end.
      await systemClock.breathe();
      collectGarbage();
      bell.ring();
      await Promise.all(waits);
    }
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});
