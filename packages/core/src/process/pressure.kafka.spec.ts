import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { systemClock } from '../clock/clock.js';
import type { LogRecord } from '../log/log.js';
import type { ProcessRunner } from './process-runner.js';
import { Scene } from './process.testing.js';

const FAST = [1, 2, 3];

let scenes: Scene[];
beforeEach(() => {
  scenes = [];
});
afterEach(async () => {
  for (const scene of scenes) await scene.close();
});

/**
 * A processor of four partitions that is up. Two of them are compared while they run side by side: what else the machine does
 * meanwhile slows both.
 */
async function start(
  onRecord: (record: LogRecord) => Promise<void> | void,
): Promise<{ readonly scene: Scene; readonly runner: ProcessRunner }> {
  const scene = new Scene();
  scenes.push(scene);
  await scene.createTopics(4);
  const runner = scene.run({ onRecord });
  await scene.status(runner, 'up');
  return { scene, runner };
}

/** Records for one partition, so that a test decides where its load is. */
const load = (scene: Scene, partition: number, count: number, value = '1') =>
  Array.from({ length: count }, () => ({ ...scene.record(`key-${partition}`, value), partition }));

describe('a processor under pressure', () => {
  it('S91 keeps four fifths of the pace of fast partitions beside a slow one', async () => {
    const each = 3_000;
    const beside = async (slowMs: number) => {
      const handled = [0, 0, 0, 0];
      const { scene } = await start(({ partition }) => {
        handled[partition]!++;
        return systemClock.wait(partition === 0 ? slowMs : 2);
      });
      return { scene, fast: () => FAST.reduce((sum, partition) => sum + handled[partition]!, 0) };
    };
    const both = [await beside(2), await beside(100)];
    await Promise.all(
      both.map(({ scene }) =>
        scene.log.producer().send([0, ...FAST].flatMap((partition) => load(scene, partition, each))),
      ),
    );
    const counts = () => both.map(({ fast }) => fast());
    // From where both run to where the first of them is near the end of what it has.
    const until = (reached: () => boolean) =>
      eventually(() => expect(reached()).toBe(true), { timeoutMs: 60_000, intervalMs: 1 });
    await until(() => Math.min(...counts()) > each / 3);
    const from = counts();
    await until(() => Math.max(...counts()) > 2.5 * each);
    const [alike, uneven] = counts().map((count, i) => count - from[i]!);
    expect(uneven! / alike!).toBeGreaterThanOrEqual(0.8);
    expect(scenes.flatMap(({ warnings }) => warnings)).toEqual([]);
  });

  it('S90 holds the latency of other partitions beside a hot key, bounds what waits, and names the partition', async () => {
    /** `hot` records for the one partition with every one for each of the others. */
    const beside = async (hot: number) => {
      const latencies: number[] = [];
      let waiting = 0;
      const { scene, runner } = await start(({ partition, value }) => {
        if (partition !== 0) latencies.push(performance.now() - Number(String(value)));
        waiting = Math.max(waiting, runner.tasks.get(partition)!.queued);
      });
      const producer = scene.log.producer();
      const send = () => {
        const now = String(performance.now());
        return producer.send([...load(scene, 0, hot), ...FAST.flatMap((partition) => load(scene, partition, 1, now))]);
      };
      return { runner, latencies, send, waiting: () => waiting };
    };
    const [even, hot] = [await beside(1), await beside(27)];
    for (let n = 0; n < 400; n++) {
      await Promise.all([even.send(), hot.send()]);
      await systemClock.wait(5);
    }
    const p99 = async ({ latencies }: typeof even) => {
      await eventually(() => expect(latencies).toHaveLength(1_200));
      // What came before the code was compiled is not of the hot key.
      return latencies.slice(300).sort((a, b) => a - b)[891]!;
    };
    expect((await p99(hot)) / (await p99(even))).toBeLessThanOrEqual(2);
    expect(hot.waiting()).toBeGreaterThan(0);
    expect(hot.waiting()).toBeLessThan(10_000);
    await eventually(() => {
      const handled = hot.runner.metrics().filter(({ name }) => name === 'headwater_processor_handled_total');
      const hottest = handled.sort((a, b) => b.value - a.value)[0]!;
      expect(hottest.labels['partition']).toBe('0');
      expect(hottest.value / handled.reduce((sum, { value }) => sum + value, 0)).toBeGreaterThan(0.75);
    });
  });
});
