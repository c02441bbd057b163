import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { systemClock } from '../clock/clock.js';
import type { Log, LogProducer } from '../log/log.js';
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
  it('S91 keeps four fifths of the pace of fast partitions beside a slow one', async () => {
    await scene.createTopics(4);
    const each = 1_500;
    let slowMs = 2;
    const handled = [0, 0, 0, 0];
    const runner = scene.run({
      onRecord: ({ partition }) => {
        handled[partition]!++;
        return systemClock.wait(partition === 0 ? slowMs : 2);
      },
    });
    await scene.status(runner, 'up');
    /** Milliseconds until the fast partitions have another `each` committed; the slow one has more than it can do. */
    const round = async (ms: number) => {
      slowMs = ms;
      const wanted = handled.map((count) => count + each);
      const startedAt = performance.now();
      await produce(
        scene.log,
        [0, 1, 2, 3].flatMap((partition) => load(partition, each)),
      );
      await eventually(
        () => expect([1, 2, 3].every((partition) => handled[partition]! >= wanted[partition]!)).toBe(true),
        {
          timeoutMs: 60_000,
          intervalMs: 5,
        },
      );
      return performance.now() - startedAt;
    };
    const beside = async (ms: number) => {
      const took = await round(ms);
      slowMs = 0;
      await eventually(() => expect(Math.min(...handled)).toBe(Math.max(...handled)), { timeoutMs: 60_000 });
      return took;
    };
    await beside(2);
    const rounds = [];
    for (let n = 0; n < 3; n++) rounds.push([await beside(2), await beside(100)] as const);
    const kept = rounds.map(([alike, slow]) => alike / slow).sort((a, b) => a - b);
    expect(kept[1]).toBeGreaterThanOrEqual(0.8);
    expect(scene.warnings).toEqual([]);
  }, 300_000);

  it('S90 holds the latency of other partitions beside a hot key, bounds what waits, and names the partition', async () => {
    await scene.createTopics(4);
    const latencies: number[] = [];
    const runner = scene.run({
      onRecord: ({ partition, value }) => {
        if (partition !== 0) latencies.push(performance.now() - Number(String(value)));
      },
    });
    await scene.status(runner, 'up');
    let most = 0;
    const calm = log(scene.log);
    /** 3 records every 5 ms for the calm partitions, and `hot` for the other one; their 99th percentile. */
    const round = async (hot: number) => {
      latencies.length = 0;
      const writer = await calm;
      for (let n = 0; n < 300; n++) {
        const value = String(performance.now());
        await writer.send([
          ...load(0, hot),
          ...[1, 2, 3].map((partition) => ({ ...scene.record(`key-${partition}`, value), partition })),
        ]);
        most = Math.max(most, runner.tasks.get(0)!.queued);
        await systemClock.wait(5);
      }
      await eventually(() => expect(latencies).toHaveLength(900));
      return latencies.sort((a, b) => a - b)[890]!;
    };
    await round(1);
    const rounds = [];
    for (let n = 0; n < 3; n++) rounds.push([await round(1), await round(27)] as const);
    const ratios = rounds.map(([even, hot]) => hot / even).sort((a, b) => a - b);
    expect(ratios[1]).toBeLessThanOrEqual(2);
    expect(most).toBeLessThan(10_000);
    await eventually(() => {
      const handled = runner.metrics().filter(({ name }) => name === 'headwater_processor_handled_total');
      const hottest = handled.sort((a, b) => b.value - a.value)[0]!;
      expect(hottest.labels['partition']).toBe('0');
      expect(hottest.value / handled.reduce((sum, { value }) => sum + value, 0)).toBeGreaterThan(0.75);
    });
  });
});

async function log(of: Log): Promise<LogProducer> {
  const producer = of.producer();
  await producer.send(load(0, 1));
  return producer;
}
