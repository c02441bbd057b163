import { describe, expect, it } from '@jest/globals';
import { fillTo } from '@headwater/core';
import { BatchLimits } from './batch-limits.js';
import type { Call } from './requests/call.js';

type Settings = Readonly<Record<string, string>>;

/** A cluster whose topic has these settings when it is asked; undefined: it does not answer. */
function cluster(settingsNow: () => Settings | undefined) {
  let asked = 0;
  const limits = new BatchLimits(<T>(call: Call<T>) => {
    asked++;
    const settings = settingsNow();
    if (settings === undefined) return Promise.reject(new Error(`${call.apiName} is lost`));
    return Promise.resolve([{ topic: 't', error: 0, settings: new Map(Object.entries(settings)) }] as T);
  });
  return { limits, asked: () => asked };
}

describe('batch limits', () => {
  it('knows none before a batch was refused, and fills to a little under the broker’s default', () => {
    const { limits } = cluster(() => ({}));
    expect([limits.of('t'), fillTo(limits, 't')]).toEqual([undefined, 1_000_000]);
  });

  it('learns what the topic says, the smaller of its batches and its segments', async () => {
    const { limits } = cluster(() => ({ 'max.message.bytes': '100000', 'segment.bytes': '50000' }));
    expect(await limits.learn('t', 900_000)).toBe(50_000);
    expect([limits.of('t'), fillTo(limits, 't'), limits.of('other')]).toEqual([50_000, 50_000, undefined]);
  });

  it.each([
    ['that cannot be asked', () => undefined],
    ['that tells nothing', () => ({})],
    ['that says it takes what it refused', () => ({ 'max.message.bytes': '900000' })],
  ])('halves what was refused by a topic %s', async (_, settings) => {
    const { limits } = cluster(settings);
    expect(await limits.learn('t', 900_000)).toBe(450_000);
    expect(await limits.learn('t', 450_000)).toBe(225_000);
  });

  it('asks once for batches that are refused together, and not for one cut before the limit was known', async () => {
    const { limits, asked } = cluster(() => ({ 'max.message.bytes': '10000' }));
    expect(await Promise.all([limits.learn('t', 900_000), limits.learn('t', 400_000)])).toEqual([10_000, 10_000]);
    expect(await limits.learn('t', 500_000)).toBe(10_000);
    expect(asked()).toBe(1);
  });

  it('goes down with the topic’s limit and not up again', async () => {
    let now = '10000';
    const { limits } = cluster(() => ({ 'max.message.bytes': now }));
    await limits.learn('t', 900_000);
    now = '5000';
    expect(await limits.learn('t', 9_000)).toBe(5_000);
    now = '8000';
    expect(await limits.learn('t', 5_000)).toBe(2_500);
  });

  it('fills no batch above the usual size where a topic takes more', async () => {
    const { limits } = cluster(() => ({ 'max.message.bytes': '2000000' }));
    expect(await limits.learn('t', 3_000_000)).toBe(2_000_000);
    expect(fillTo(limits, 't')).toBe(1_000_000);
  });
});
