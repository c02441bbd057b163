import { cpSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { levelState } from '@headwater/state-level';
import { eventually } from '@headwater/testing';
import { committedRecords } from '../log/log.testing.js';
import { stateTopicOf } from './processor.js';
import { EAGER_COMPACTION, LATER, Sums, observed, up, userState, type Applied } from './sums.testing.js';
import type { ProcessOptions } from './process-runner.js';

const KEYS = Array.from({ length: 400 }, (_, i) => `key-${i}`);
const NEVER_MS = 3_600_000;

let directory: string;
let sums: Sums;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'headwater-local-state-'));
});
afterEach(async () => {
  await sums.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Runs on a directory until the input is handled, and tells what its stores were given by then. */
async function pass(of: string, options: Partial<ProcessOptions> = {}): Promise<Applied & { state: object }> {
  const { open, applied } = observed(levelState({ directory: of }));
  const runner = sums.run({ ...options, openStore: open });
  await up(runner);
  await sums.exactly();
  const state = await userState(runner);
  await runner.stop();
  return { ...applied, state };
}

const names = (applied: Applied) => applied.entries.filter((entry) => entry.startsWith('s:'));

describe('a state on local disk', () => {
  it('S85 catches up from its stamp when the process died between the commit and the write to disk', async () => {
    sums = await Sums.create(2);
    await sums.add(KEYS, 2);
    await pass(directory);
    // What is committed from here on stays in memory: a copy of the directory now is what a crash leaves.
    const dying = sums.run({ openStore: levelState({ directory, flushMs: NEVER_MS }) });
    await up(dying);
    await sums.add(KEYS.slice(0, 30), 5);
    await sums.add(KEYS.slice(30, 40), 'delete');
    await sums.exactly();
    const crashed = join(directory, 'crashed');
    cpSync(join(directory, sums.name), join(crashed, sums.name), { recursive: true });
    await dying.stop();
    const { applied, open } = observed(levelState({ directory: crashed }));
    const next = sums.run({ openStore: open });
    await up(next);
    expect(applied.cleared).toBe(0);
    expect(applied.opened.every((stamp) => stamp > 0)).toBe(true);
    expect(new Set(names(applied))).toEqual(new Set(KEYS.slice(0, 40).map((key) => `s:${key}`)));
    expect(await userState(next)).toEqual(sums.sums);
    await sums.add(KEYS.slice(0, 50), 1);
    await sums.exactly();
    expect(await userState(next)).toEqual(sums.sums);
  });

  it('S86 is right again after it was deleted, set back, damaged or swapped while nobody ran', async () => {
    sums = await Sums.create(2);
    const own = join(directory, sums.name);
    const aside = join(directory, 'aside');
    await sums.add(KEYS, 3);
    await pass(directory);
    const damages: Record<string, () => void> = {
      deleted: () => rmSync(own, { recursive: true }),
      'set back to a copy': () => {
        rmSync(own, { recursive: true });
        renameSync(join(directory, 'copy'), own);
      },
      damaged: () => {
        for (const partition of ['0', '1']) {
          const [table] = readdirSync(join(own, partition)).filter((name) => name.endsWith('.ldb'));
          const bytes = readFileSync(join(own, partition, table!));
          bytes[bytes.length >> 1]! ^= 1;
          writeFileSync(join(own, partition, table!), bytes);
        }
      },
      swapped: () => {
        renameSync(join(own, '0'), aside);
        renameSync(join(own, '1'), join(own, '0'));
        renameSync(aside, join(own, '1'));
      },
    };
    for (const [kind, damage] of Object.entries(damages)) {
      cpSync(own, join(directory, 'copy'), { recursive: true, force: true });
      await sums.add(KEYS.slice(0, 50), 1);
      await sums.add(KEYS.slice(50, 60), 'delete');
      await pass(directory);
      damage();
      rmSync(join(directory, 'copy'), { recursive: true, force: true });
      await sums.add(KEYS.slice(40, 70), 7);
      const { state, opened, entries } = await pass(directory);
      expect([kind, state]).toEqual([kind, sums.sums]);
      // Only the copy is worth something: from its stamp on there are few.
      const stamps = opened.map((stamp) => stamp > 0);
      expect([kind, stamps]).toEqual([kind, kind === 'set back to a copy' ? [true, true] : [false, false]]);
      expect(new Set(entries).size > KEYS.length).toBe(kind !== 'set back to a copy');
    }
  });

  it('S86 reads an old copy from the start when compaction may have removed deletes it has not seen', async () => {
    sums = await Sums.create(1, EAGER_COMPACTION);
    await sums.add(['ghost', 'a']);
    await pass(directory);
    const aside = join(directory, 'aside');
    cpSync(join(directory, sums.name), join(aside, sums.name), { recursive: true });
    await sums.add(['ghost'], 'delete');
    const keeper = sums.run();
    await up(keeper);
    await eventually(async () => {
      await sums.add(['a']);
      const left = await committedRecords(sums.log, stateTopicOf(sums.name));
      expect(left.map(({ key }) => key!.toString())).not.toContain('s:ghost');
    }, LATER);
    await keeper.stop();
    const old = await pass(aside, { tombstonesMs: 1 });
    expect(old.opened[0]).toBeGreaterThan(0);
    expect(old.cleared).toBe(1);
    expect(old.state).toEqual(sums.sums);
  });
});
