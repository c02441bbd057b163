import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { systemClock } from '../clock/clock.js';
import { Scene } from './process.testing.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Ten sessions, and long enough for what waits to be worked off and fetched again, more than once. */
const SLOW_MS = 60_000;
const SESSION_MS = 6_000;
const HANDLER_MS = 3;
const VALUE = 'x'.repeat(600);
/** Records that wait at the start: more than may be fetched. */
const BACKLOG = 20_000;
/** 6,000 may wait, and half as many again come with the fetch that exceeds it; some of them are handled meanwhile. */
const MOST_QUEUED = 9_500;
const LOOK_MS = 3_000;
/** A reader that is not held back asks several times in it. */
const PAUSE_MS = 2_000;

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(() => scene.close());

/** What the heap holds behind a collection: what it holds between two is no growth. */
function keptBytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** The times between one and the next. */
const gaps = (times: readonly number[]) => times.slice(1).map((at, i) => at - times[i]!);

describe('a processor whose handler is slower than its input', () => {
  it('S92 pauses its fetching again and again, holds no more for ten times the input, and stays in its generation for ten sessions', async () => {
    await scene.createTopics(1);
    const { log, proxy } = await scene.faultyLog(4_000);
    const asked = { Fetch: [] as number[], Heartbeat: [] as number[], JoinGroup: [] as number[] };
    proxy.decide = ({ apiName }) => void asked[apiName as keyof typeof asked]?.push(performance.now());
    let handlerMs = HANDLER_MS;
    let [handled, misplaced] = [0, 0];
    const runner = scene.run(
      {
        onRecord: ({ key }) => {
          if (Number(key) !== handled++) misplaced++;
          return handlerMs > 0 ? systemClock.wait(handlerMs) : undefined;
        },
      },
      { log, group: { sessionTimeoutMs: SESSION_MS } },
    );
    await scene.status(runner, 'up');
    const { tasks } = runner;
    const joins = asked.JoinGroup.length;
    const producer = scene.log.producer();
    let sent = 0;
    /** By what was handled, not by the clock: ten times its pace, however slow the machine. */
    const feed = async () => {
      while (sent < BACKLOG + 10 * handled) {
        const keys = Array.from({ length: 500 }, () => String(sent++));
        await producer.send(keys.map((key) => ({ ...scene.record(key, VALUE), partition: 0 })));
      }
    };
    const looks: { readonly sent: number; readonly kept: number }[] = [];
    const pauses = () => gaps(asked.Fetch).filter((ms) => ms > PAUSE_MS).length;
    const from = performance.now();
    const passed = () => performance.now() - from;
    let most = 0;
    // Two pauses that have ended: on a slow machine that takes longer.
    while (passed() < SLOW_MS || pauses() < 2) {
      await feed();
      most = Math.max(most, tasks.get(0)?.queued ?? 0);
      expect(most).toBeLessThan(MOST_QUEUED);
      if (passed() >= looks.length * LOOK_MS) looks.push({ sent, kept: keptBytes() });
      await systemClock.wait(20);
    }
    const slowFor = passed();
    expect(handled).toBeLessThan(sent / 10);
    expect(most).toBeGreaterThan(MOST_QUEUED / 2);
    expect(asked.Heartbeat.filter((at) => at > from).length).toBeGreaterThan((10 * slowFor) / SESSION_MS);
    expect(asked.JoinGroup).toHaveLength(joins);
    const halves = [looks.slice(0, looks.length / 2), looks.slice(looks.length / 2)] as const;
    const [before, after] = halves.map((half) => half.map(({ kept }) => kept).sort((a, b) => a - b)[half.length >> 1]!);
    const arrived = (halves[1].at(-1)!.sent - halves[1][0]!.sent) * VALUE.length;
    expect(after! - before!).toBeLessThan(arrived / 8);
    handlerMs = 0;
    await eventually(() => expect(handled).toBe(sent), { timeoutMs: 60_000, intervalMs: 100 });
    expect(misplaced).toBe(0);
    expect(asked.JoinGroup).toHaveLength(joins);
    expect(runner.tasks).toBe(tasks);
    expect(runner.health().facts['restarts']).toBe(0);
    expect(scene.warnings).toEqual([]);
  }, 240_000);
});
