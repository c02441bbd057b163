import { expect, it } from '@jest/globals';
import { eventually } from './eventually.js';

it('returns the result of the first attempt that passes', async () => {
  let attempts = 0;
  const result = await eventually(
    () => {
      attempts += 1;
      if (attempts < 3) throw new Error('not yet');
      return attempts;
    },
    { intervalMs: 1 },
  );
  expect(result).toBe(3);
});

it('throws the error of the last attempt when the time is over', async () => {
  let attempts = 0;
  const failing = eventually(() => Promise.reject(new Error(`attempt ${++attempts}`)), {
    timeoutMs: 500,
    intervalMs: 1,
  });
  await expect(failing).rejects.toThrow(/^attempt \d+$/);
  expect(attempts).toBeGreaterThan(1);
});

it('gives up on an attempt that hangs', async () => {
  await expect(eventually(() => new Promise(() => undefined), { timeoutMs: 20 })).rejects.toThrow(/did not settle/);
});
