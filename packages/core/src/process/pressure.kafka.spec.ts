import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { systemClock } from '../clock/clock.js';
import { produce } from '../log/log.testing.js';
import { Scene } from './process.testing.js';

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(() => scene.close());

/** Records for one partition, so that a test decides where its load is. */
const load = (partition: number, count: number) =>
  Array.from({ length: count }, () => ({ ...scene.record(`key-${partition}`, '1'), partition }));

describe('a processor under pressure', () => {
  it('S92 fetches no more than it can hold while its handler is slower than the input, and keeps its partitions', async () => {
    await scene.createTopics(1);
    let slow = true;
    let seen = 0;
    const runner = scene.run(
      {
        onRecord: () => {
          seen++;
          return slow ? systemClock.wait(10) : undefined;
        },
      },
      { group: { sessionTimeoutMs: 6_000 } },
    );
    await scene.status(runner, 'up');
    const { tasks } = runner;
    const total = 60_000;
    let most = 0;
    const startedAt = performance.now();
    for (let sent = 0; sent < total; sent += 5_000) await produce(scene.log, load(0, 5_000));
    // Longer than a session: without heartbeats the member would have been put out.
    await eventually(
      () => {
        most = Math.max(most, tasks.get(0)!.queued);
        expect(performance.now() - startedAt).toBeGreaterThan(8_000);
      },
      { timeoutMs: 30_000, intervalMs: 20 },
    );
    // 10,000 and what one fetch brings on top of it, out of 60,000.
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThan(total / 2);
    expect(seen).toBeLessThan(total / 10);
    slow = false;
    await eventually(() => expect(seen).toBe(total), { timeoutMs: 30_000 });
    expect(runner.tasks).toBe(tasks);
    expect(runner.health().facts['restarts']).toBe(0);
    expect(scene.warnings).toEqual([]);
  });
});
