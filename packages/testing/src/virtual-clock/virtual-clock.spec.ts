import { describe, expect, it } from '@jest/globals';
import { seededRandom } from './random.js';
import { virtualClock } from './virtual-clock.js';

describe('virtualClock', () => {
  /** Three workers that each take ten steps at the same moments. */
  async function interleaving(seed: number): Promise<string> {
    const clock = virtualClock(seed);
    const steps: string[] = [];
    const worker = async (name: string) => {
      for (let n = 0; n < 10; n++) {
        await clock.wait(5);
        steps.push(name);
      }
    };
    await clock.run(async () => void (await Promise.all(['a', 'b', 'c'].map(worker))));
    return steps.join('');
  }

  it('repeats the order of a seed, and gives other seeds another', async () => {
    const orders = await Promise.all([1, 1, 2, 3].map(interleaving));
    expect(orders[0]).toBe(orders[1]);
    expect(new Set(orders).size).toBe(3);
    // Time had to wait for all three.
    for (const order of orders)
      expect(order.match(/.{3}/g)!.map((of) => of.split('').sort().join(''))).toEqual(Array(10).fill('abc'));
  });

  it('moves time by what is waited for, and takes no real time for it', async () => {
    const clock = virtualClock(1);
    const startedAt = clock.now();
    await clock.run(() => clock.wait(3_000_000));
    expect([clock.elapsed(), clock.now() - startedAt]).toEqual([3_000_000, 3_000_000]);
  });

  it('ends a wait at its signal, also one that has aborted before', async () => {
    const clock = virtualClock(1);
    await clock.run(async () => {
      const stop = new AbortController();
      const waiting = clock.wait(60_000, stop.signal);
      await clock.wait(10);
      stop.abort();
      await waiting;
      await clock.wait(60_000, stop.signal);
    });
    expect(clock.elapsed()).toBe(10);
  });

  it('jumps the wall of one machine, and neither the elapsed time nor another machine', async () => {
    const clock = virtualClock(1);
    const [left, right] = [clock.machine(), clock.machine()];
    left.jump(3_600_000);
    await clock.run(() => left.wait(1_000));
    expect([left.now() - right.now(), left.elapsed(), right.elapsed()]).toEqual([3_600_000, 1_000, 1_000]);
    left.jump(-7_200_000);
    expect(left.now() - right.now()).toBe(-3_600_000);
  });

  it('tells when nothing can go on, when time is over, and passes a failure on', async () => {
    await expect(virtualClock(1).run(() => new Promise(() => undefined))).rejects.toMatchObject({
      code: 'CLOCK_STUCK',
    });
    const clock = virtualClock(1);
    const forEver = async () => {
      for (;;) await clock.wait(100);
    };
    await expect(clock.run(forEver, { limitMs: 1_000 })).rejects.toMatchObject({ code: 'CLOCK_STUCK' });
    await expect(virtualClock(1).run(() => Promise.reject(new Error('mine')))).rejects.toThrow('mine');
  });

  it('keeps forked choices apart from further draws', () => {
    const [a, b] = [seededRandom(9), seededRandom(9)];
    const [forkOfA, forkOfB] = [a.fork(), b.fork()];
    a.below(10);
    expect([forkOfA.below(1_000), forkOfA.chance(1), forkOfA.pick([7])]).toEqual([forkOfB.below(1_000), true, 7]);
  });
});
