import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  cpSync,
  renameSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { StateStore } from '@headwater/core';
import { inspectLevel } from './inspect-level.js';
import { levelState } from './level-state.js';

let directory: string;
let warnings: string[];
let opened: StateStore[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'headwater-state-'));
  warnings = [];
  opened = [];
});
afterEach(async () => {
  for (const store of opened) await store.close();
  rmSync(directory, { recursive: true, force: true });
});

const place = (partition: number) => join(directory, 'sums', String(partition));

async function open(partition = 0, topicId = 'topic-1', options: { flushMs?: number } = {}): Promise<StateStore> {
  const logger = { log: () => undefined, error: () => undefined, warn: (text: string) => void warnings.push(text) };
  const store = await levelState({ directory, logger, ...options })({ processor: 'sums', partition, topicId });
  opened.push(store);
  return store;
}

const entries = (from: number, to: number, value = (i: number) => `value-${i}`) =>
  new Map(Array.from({ length: to - from }, (_, n) => [`s:key-${from + n}`, Buffer.from(value(from + n))] as const));

async function dump(store: StateStore): Promise<Record<string, string>> {
  const all: Record<string, string> = {};
  for await (const [entry, value] of store.entries('')) all[entry] = value.toString();
  return all;
}

/** Enough for several table files, the write-ahead log and the manifest to matter. */
async function fill(store: StateStore): Promise<void> {
  for (let round = 0; round < 6; round++)
    await store.apply(
      entries(round * 2_000, (round + 1) * 2_000, (i) => `${i}`.repeat(400)),
      (round + 1) * 2_000,
    );
  await store.close();
}

describe('levelState', () => {
  it('keeps entries, deletes and the stamp over a restart', async () => {
    const store = await open();
    await store.apply(entries(0, 100), 100);
    await store.apply(new Map([...entries(0, 10, () => 'new'), ['s:key-50', null] as const]), 120);
    expect(store.get('s:key-0')!.toString()).toBe('new');
    expect(store.get('s:key-50')).toBeUndefined();
    await store.close();
    const again = await open();
    expect([again.stamp, again.get('s:key-0')!.toString(), again.get('s:key-99')!.toString()]).toEqual([
      120,
      'new',
      'value-99',
    ]);
    expect(again.get('s:key-50')).toBeUndefined();
    expect(Object.keys(await dump(again))).toHaveLength(99);
    expect(again.savedAtMs).toBeGreaterThan(Date.now() - 60_000);
  });

  it('is closed into tables: nothing of a log is read again when it is opened', async () => {
    const store = await open();
    await store.apply(entries(0, 1_000), 7);
    await store.close();
    expect(statSync(logFile(place(0))).size).toBe(0);
    const again = await open();
    expect([again.stamp, Object.keys(await dump(again)).length]).toEqual([7, 1_000]);
  });

  it('reads what is being written, what is waiting to be, and what was before', async () => {
    const store = await open(0, 'topic-1', { flushMs: 0 });
    for (let round = 1; round <= 50; round++) {
      await store.apply(
        entries(0, 200, (i) => `${i} in ${round}`),
        round,
      );
      for (const i of [0, 100, 199]) expect(store.get(`s:key-${i}`)!.toString()).toBe(`${i} in ${round}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
  });

  it('gives entries by their prefix, those not yet written too', async () => {
    const store = await open();
    await store.apply(new Map([['s:a', Buffer.from('1')], ['t:b', Buffer.from('2')], ['t:c', Buffer.from('3')], ['p:d', Buffer.from('4')]]), 4); // prettier-ignore
    const timers: string[] = [];
    for await (const [entry] of store.entries('t:')) timers.push(entry);
    expect(timers).toEqual(['t:b', 't:c']);
  });

  it('forgets everything when cleared, on disk too', async () => {
    const store = await open();
    await store.apply(entries(0, 10), 10);
    await store.clear();
    expect([store.stamp, store.get('s:key-1')]).toEqual([0, undefined]);
    await store.apply(entries(5, 6), 7);
    await store.close();
    const again = await open();
    expect([again.stamp, Object.keys(await dump(again))]).toEqual([7, ['s:key-5']]);
  });

  it('refuses a second owner of a directory, and leaves the first alone', async () => {
    const first = await open();
    await first.apply(entries(0, 10), 10);
    await expect(open()).rejects.toMatchObject({ code: 'STATE_LOCKED', retryable: true });
    await first.close();
    expect((await open()).stamp).toBe(10);
  });

  it('does not wipe a directory under its living owner, even when it looks damaged', async () => {
    await fill(await open());
    const first = await open();
    const [table] = readdirSync(place(0)).filter((name) => name.endsWith('.ldb'));
    const bytes = readFileSync(join(place(0), table!));
    writeFileSync(join(place(0), table!), flipped(bytes, 100));
    await expect(open()).rejects.toMatchObject({ code: 'STATE_LOCKED' });
    expect(readdirSync(place(0))).toContain(table);
    expect(first.stamp).toBe(12_000);
  });

  it('wipes a directory of another partition, another topic of the same name, or another format', async () => {
    const [zero, one] = [await open(0), await open(1)];
    await zero.apply(entries(0, 10), 10);
    await one.apply(entries(10, 20), 20);
    await zero.close();
    await one.close();
    renameSync(place(0), join(directory, 'aside'));
    renameSync(place(1), place(0));
    renameSync(join(directory, 'aside'), place(1));
    for (const partition of [0, 1]) {
      const store = await open(partition);
      expect([store.stamp, await dump(store)]).toEqual([0, {}]);
      await store.apply(entries(0, 3), 3);
      await store.close();
    }
    expect(warnings).toHaveLength(2);
    expect((await open(0, 'topic-2')).stamp).toBe(0);
    expect(warnings.join()).toContain('another task or topic');
  });

  it('takes an older whole copy for what it is: it only has to catch up', async () => {
    const first = await open();
    await first.apply(entries(0, 10), 10);
    await first.close();
    cpSync(place(0), join(directory, 'copy'), { recursive: true });
    const second = await open();
    await second.apply(entries(10, 20), 20);
    await second.close();
    rmSync(place(0), { recursive: true });
    renameSync(join(directory, 'copy'), place(0));
    const store = await open();
    expect([store.stamp, Object.keys(await dump(store))]).toEqual([10, [...entries(0, 10).keys()]]);
    expect(warnings).toEqual([]);
  });

  it('notices one changed byte anywhere in a live file, and a file that is missing', async () => {
    await fill(await open());
    const copy = join(directory, 'copy');
    cpSync(place(0), copy, { recursive: true });
    const files = readdirSync(copy).filter((name) => /\.ldb$|^MANIFEST|^CURRENT$/.test(name));
    expect(files.filter((name) => name.endsWith('.ldb')).length).toBeGreaterThan(0);
    for (const name of files) {
      const bytes = readFileSync(join(copy, name));
      // Near the beginning, in the middle, and in the index of a table.
      const inside = [2, bytes.length >> 1, bytes.length - 60].filter((at) => at > 0);
      for (const at of inside) {
        writeFileSync(join(copy, name), flipped(bytes, at));
        expect([name, at, (await inspectLevel(copy)).condition]).toEqual([name, at, 'damaged']);
        writeFileSync(join(copy, name), bytes);
      }
      if (name === 'CURRENT') continue;
      rmSync(join(copy, name));
      expect([name, (await inspectLevel(copy)).condition]).toEqual([name, 'damaged']);
      writeFileSync(join(copy, name), bytes);
    }
    expect(await inspectLevel(copy)).toEqual({ condition: 'intact' });
    const [table] = files.filter((each) => each.endsWith('.ldb'));
    writeFileSync(join(place(0), table!), flipped(readFileSync(join(place(0), table!)), 1_000));
    const store = await open();
    expect([store.stamp, await dump(store)]).toEqual([0, {}]);
    expect(warnings.join()).toContain(`damaged (${table})`);
  });

  it('loses whole batches from the end when its log is cut at any byte, and tells a damaged middle', async () => {
    const store = await open(0, 'topic-1', { flushMs: 0 });
    const sizes: number[] = [];
    for (let stamp = 1; stamp <= 8; stamp++) {
      // Each replaces all entries: a torn batch would show as a mixture.
      await store.apply(
        entries(0, 60, (i) => `${i} ${'.'.repeat(100)} at ${stamp}`),
        stamp,
      );
      for await (const _ of store.entries('none:')) expect(_).toBeUndefined();
      sizes.push(statSync(logFile(place(0))).size);
    }
    const copy = join(directory, 'copy', 'sums', '0');
    const live = join(directory, 'live');
    cpSync(place(0), live, { recursive: true });
    await store.close();
    for (const cut of [sizes[2]!, sizes[2]! + 1, sizes[4]! - 1, sizes[6]! + 700, sizes[7]! - 3]) {
      rmSync(copy, { recursive: true, force: true });
      cpSync(live, copy, { recursive: true });
      truncateSync(logFile(copy), cut);
      const cutStore = await levelState({ directory: join(directory, 'copy') })({
        processor: 'sums',
        partition: 0,
        topicId: 'topic-1',
      });
      const stamp = sizes.filter((size) => size <= cut).length;
      expect([cut, cutStore.stamp]).toEqual([cut, stamp]);
      expect(new Set(Object.values(await dump(cutStore)).map((value) => value.split(' at ')[1]))).toEqual(
        new Set([String(stamp)]),
      );
      await cutStore.close();
    }
    rmSync(copy, { recursive: true, force: true });
    cpSync(live, copy, { recursive: true });
    writeFileSync(logFile(copy), flipped(readFileSync(logFile(copy)), sizes[1]! + 100));
    expect((await inspectLevel(copy)).condition).toBe('damaged');
  });
});

const logFile = (of: string) =>
  join(
    of,
    readdirSync(of).find((name) => name.endsWith('.log'))!,
  );

function flipped(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes);
  changed[at]! ^= 0x10;
  return changed;
}
