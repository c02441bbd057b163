import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { FetchedBatch } from '@headwater/core';
import { FakeBrokers } from './fake-brokers.testing.js';
import { KafkaError, OFFSET_OUT_OF_RANGE } from './kafka.errors.js';
import { KafkaReader } from './reader.js';

const CORRUPT = 2;
const NOT_AVAILABLE = 9;
/** A poll may take so long; nothing here does. */
const FOREVER = { maxWaitMs: 60_000 };

let brokers: FakeBrokers;
let reader: KafkaReader;
/** What polls told, in order: the texts of records, and the errors with their topic. */
let told: string[];
beforeEach(() => {
  brokers = new FakeBrokers();
  reader = new KafkaReader(brokers, { maxBytes: 1_000 });
  told = [];
});
afterEach(() => reader.close());

describe('a reader', () => {
  it('asks again for what was refused while its leader has nothing else', async () => {
    const [first] = brokers.topic('t', 1, 1);
    brokers.add('t', 0, 'x');
    seek('t/0', 't/1');
    first!.error = NOT_AVAILABLE;
    const polling = poll(FOREVER);
    await fetched('t/0');
    first!.error = undefined;
    await polling;
    expect(told).toEqual(['x']);
  });

  it('asks for a topic that is looked for beside one whose leader has nothing', async () => {
    brokers.topic('known', 1);
    brokers.topic('new', 1);
    await brokers.tryRefresh(['known']);
    brokers.add('new', 0, 'x');
    seek('known/0', 'new/0');
    await poll(FOREVER);
    expect(told).toEqual(['x']);
  });

  it('asks for what is sought, resumed or led by another while a poll waits', async () => {
    const [first, second] = brokers.topic('t', 1, 1, 2);
    brokers.add('t', 1, 'sought');
    seek('t/0', 't/2');
    let polling = poll(FOREVER);
    await fetched('t/0');
    seek('t/1');
    await polling;
    reader.pause('t', 1);
    brokers.add('t', 1, 'resumed');
    polling = poll(FOREVER);
    await fetched('t/0', 2);
    reader.resume('t', 1);
    await polling;
    polling = poll(FOREVER);
    first!.leader = second!.leader = 2;
    brokers.add('t', 0, 'moved');
    await polling;
    expect(told).toEqual(['sought', 'resumed', 'moved']);
    // Where nothing is under way either.
    for (const partition of [0, 1, 2]) reader.pause('t', partition);
    brokers.add('t', 0, 'alone');
    await poll({ maxWaitMs: 300 });
    polling = poll(FOREVER);
    await settled();
    reader.resume('t', 0);
    await polling;
    expect(told.at(-1)).toBe('alone');
  });

  it('tells of a place outside of the log, not of one that it has gone on from meanwhile', async () => {
    const [first] = brokers.topic('t', 1, 1);
    brokers.add('t', 0, 'a');
    brokers.range = { start: 5, high: 9 };
    seek('t/0', 't/1');
    first!.error = OFFSET_OUT_OF_RANGE;
    const looked = heldBack('ListOffsets');
    const ending = new AbortController();
    const polling = poll({ ...FOREVER, signal: ending.signal });
    await looked.begun;
    await fetched('t/1', 2);
    first!.error = undefined;
    ending.abort();
    await polling;
    await until('a');
    looked.end();
    await settled();
    brokers.add('t', 1, 'b');
    await until('b');
    await poll({ maxWaitMs: 5 });
    expect(told).toEqual(['a', 'b']);
    seek('t/0');
    first!.error = OFFSET_OUT_OF_RANGE;
    await poll(FOREVER);
    expect(told.at(-1)).toBe('LOG_OFFSET_OUT_OF_RANGE t 0');
  });

  it('does not have others wait while it looks for what the log holds of one', async () => {
    const [first] = brokers.topic('t', 1, 1);
    seek('t/0', 't/1');
    first!.error = OFFSET_OUT_OF_RANGE;
    const looked = heldBack('ListOffsets');
    const polling = poll(FOREVER);
    await looked.begun;
    brokers.add('t', 1, 'x');
    await polling;
    expect(told).toEqual(['x']);
    looked.end();
  });

  it('tells of every forbidden topic that it is forbidden, again and again, and of none that it is missing', async () => {
    const [a] = brokers.topic('a', 1);
    const [b] = brokers.topic('b', 1);
    const [sound] = brokers.topic('sound', 1);
    seek('a/0', 'b/0', 'sound/0');
    await poll({ maxWaitMs: 20 });
    for (const topic of ['a', 'b']) brokers.forbidden.add(topic);
    a!.error = b!.error = sound!.error = NOT_AVAILABLE;
    // Longer than a topic may be unknown.
    const over = performance.now() + 1_300;
    while (performance.now() < over) await poll({ maxWaitMs: 100 });
    expect(new Set(told)).toEqual(new Set(['KAFKA_REFUSED a', 'KAFKA_REFUSED b']));
  });

  it('hands out what comes of others beside errors that last', async () => {
    brokers.topic('old', 2);
    const [, spoilt] = brokers.topic('t', 1, 1);
    brokers.add('old', 0, 'first');
    seek('old/0', 't/0', 't/1');
    await until('first');
    // Made again, alone on its leader.
    brokers.topic('old', 2);
    await brokers.tryRefresh(['old']);
    spoilt!.error = CORRUPT;
    for (let n = 0; n < 20; n++) {
      brokers.add('t', 0, `${n}`);
      await until(`${n}`);
    }
    while (new Set(told).size < 23) await poll({ maxWaitMs: 100 });
    expect(told).toEqual(expect.arrayContaining(['LOG_TOPIC_RECREATED old 0', 'LOG_CORRUPT t 1']));
  });

  it('rests between two times that it tells of an error', async () => {
    const [spoilt] = brokers.topic('t', 1);
    spoilt!.error = CORRUPT;
    seek('t/0');
    const startedAt = performance.now();
    while (told.length < 5) await poll(FOREVER);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(4 * 49);
    expect(brokers.fetches).toHaveLength(5);
  });

  it('tells once at a time of a topic that was deleted, and not because nobody answers', async () => {
    const partitions = brokers.topic('t', 1, 1, 1);
    brokers.add('t', 0, 'x');
    seek('t/0', 't/1', 't/2');
    await until('x');
    brokers.delete('t');
    for (const of of partitions) of.error = NOT_AVAILABLE;
    // One answer that does not know it, then none for longer than it may be unknown.
    while (brokers.knownLeaders('t') !== undefined) await poll({ maxWaitMs: 20 });
    brokers.isSilent = true;
    for (const over = performance.now() + 1_200; performance.now() < over;) await poll({ maxWaitMs: 100 });
    expect(told).toEqual(['x']);
    brokers.isSilent = false;
    await poll(FOREVER);
    await poll({ maxWaitMs: 20 });
    expect(told).toEqual(['x', 'LOG_TOPIC_MISSING t']);
  });

  it('tells once of what befell all partitions of a leader', async () => {
    brokers.topic('t', ...Array.from({ length: 10 }, () => 1));
    seek(...Array.from({ length: 10 }, (_, n) => `t/${n}`));
    brokers.onSend = (apiName) =>
      apiName === 'Fetch' ? Promise.reject(new KafkaError('KAFKA_AUTHENTICATION_FAILED', 'no')) : undefined;
    await poll(FOREVER);
    brokers.onSend = () => undefined;
    brokers.add('t', 9, 'x');
    await until('x');
    expect(told).toEqual(['KAFKA_AUTHENTICATION_FAILED', 'x']);
  });

  it('does not tell after a pause of what was wrong before it', async () => {
    const [first] = brokers.topic('t', 1);
    brokers.add('t', 0, ...Array.from({ length: 30 }, (_, n) => `${n}`));
    seek('t/0');
    // Only what comes behind the first fetch.
    brokers.onSend = () => (first!.error = brokers.fetches.length > 1 ? CORRUPT : undefined);
    await poll({ maxBytes: 1 });
    await fetched('t/0', 2);
    await settled();
    reader.pause('t', 0);
    brokers.onSend = () => (first!.error = undefined);
    reader.resume('t', 0);
    await until('29');
    expect(told).toEqual(Array.from({ length: 30 }, (_, n) => `${n}`));
  });

  it('hands out backlogs in turn, and what is sought beside them before they are through', async () => {
    brokers.topic('t', 1, 1, 1);
    for (const partition of [0, 1]) brokers.add('t', partition, ...Array.from({ length: 40 }, () => `${partition}`));
    brokers.add('t', 2, 'sought');
    seek('t/0', 't/1');
    // Two fetches wait now, more than is asked for beside what waits.
    while (told.length < 3) await poll({ maxBytes: 1 });
    await settled();
    seek('t/2');
    const before = told.length;
    while (!told.includes('sought')) {
      await poll({ maxBytes: 1 });
      await settled();
    }
    expect(told.length - before).toBeLessThanOrEqual(4);
    while (told.length < 81) await poll({ maxBytes: 1 });
    const backlogs = told.filter((text) => text !== 'sought').join('');
    expect(backlogs).toMatch(/^0?(10){39,40}1?$|^1?(01){39,40}0?$/);
  });

  it.each([
    ['all that has come of a few paused partitions', 2, 2],
    ['no more of many than four fetches', 40, 12],
  ])('keeps %s', async (_, count, most) => {
    const all = Array.from({ length: count }, (_, n) => n);
    brokers.topic('t', ...all.map(() => 1));
    for (const n of all) brokers.add('t', n, `first of ${n}`.padEnd(100), `second of ${n}`.padEnd(100));
    seek(...all.map((n) => `t/${n}`));
    while (told.length < count) {
      await poll({ maxBytes: 1 });
      for (const n of all) if (told.includes(`first of ${n}`)) reader.pause('t', n);
    }
    await settled();
    // Nobody answers any more: what is handed out now was kept.
    const silent = new Promise<never>(() => undefined);
    brokers.onSend = () => silent;
    for (const n of all) reader.resume('t', n);
    for (let n = 0; n < count; n++) await poll({ maxWaitMs: 0, maxBytes: 1 });
    const kept = told.length - count;
    expect(kept).toBeLessThanOrEqual(most);
    expect(kept).toBeGreaterThanOrEqual(Math.min(2, most));
  });

  it('keeps no more than four fetches that come behind a pause', async () => {
    const all = Array.from({ length: 12 }, (_, n) => n);
    brokers.topic('t', ...all);
    for (const n of all) brokers.add('t', n, `${n}`.padEnd(1_000));
    await brokers.tryRefresh(['t']);
    seek(...all.map((n) => `t/${n}`));
    const held = heldBack('Fetch');
    await poll({ maxWaitMs: 5 });
    expect(brokers.fetches).toHaveLength(12);
    for (const n of all) reader.pause('t', n);
    held.end();
    await settled();
    const silent = new Promise<never>(() => undefined);
    brokers.onSend = () => silent;
    for (const n of all) reader.resume('t', n);
    for (let n = 0; n < 12; n++) await poll({ maxWaitMs: 0, maxBytes: 1 });
    expect(told.length).toBeGreaterThan(0);
    expect(told.length).toBeLessThanOrEqual(4);
  });

  it('ends a poll in time beside a broker that hangs', async () => {
    brokers.topic('t', 1, 2);
    seek('t/0', 't/1');
    await poll({ maxWaitMs: 5 });
    brokers.onSend = (apiName) => (apiName === 'Fetch' ? new Promise<never>(() => undefined) : undefined);
    await poll({ maxWaitMs: 150 });
    await poll({ maxWaitMs: 150 });
    const startedAt = performance.now();
    for (let n = 0; n < 10; n++) await poll({ maxWaitMs: 5 });
    expect(performance.now() - startedAt).toBeLessThan(1_000);
  });

  it('brings in one poll what a broker has, however short the poll', async () => {
    brokers.topic('t', 1);
    await brokers.tryRefresh(['t']);
    brokers.add('t', 0, 'x');
    seek('t/0');
    brokers.onSend = settled;
    await poll({ maxWaitMs: 0 });
    expect(told).toEqual(['x']);
  });
});

function seek(...places: readonly string[]): void {
  for (const place of places) {
    const [topic, partition] = place.split('/') as [string, string];
    reader.seek(topic, Number(partition), 0);
  }
}

async function poll(options: { maxWaitMs?: number; maxBytes?: number; signal?: AbortSignal }): Promise<void> {
  const batches = await reader.poll(options).catch((error: KafkaError) => {
    const { topic, partition } = error.facts;
    told.push(
      [error.code, topic, partition]
        .filter((of) => of !== undefined)
        .map(String)
        .join(' '),
    );
    return [] as readonly FetchedBatch[];
  });
  for (const { records } of batches) told.push(...records.map(({ value }) => String(value).trim()));
}

async function until(text: string): Promise<void> {
  while (!told.includes(text)) await poll(FOREVER);
}

/** Resolves when so many fetches have asked for a partition. */
async function fetched(place: string, times = 1): Promise<void> {
  while (brokers.fetches.filter((asked) => asked.includes(`${place}@`)).length < times) await settled();
}

/** Everything has happened that waits for nothing but turns of the event loop. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await setImmediate();
}

/** Requests of this name are answered when `end` is called. */
function heldBack(name: string): { readonly begun: Promise<void>; readonly end: () => void } {
  let end!: () => void;
  const ended = new Promise<void>((resolve) => (end = resolve));
  const begun = new Promise<void>((resolve) => {
    brokers.onSend = (apiName) => {
      if (apiName !== name) return undefined;
      resolve();
      return ended;
    };
  });
  return { begun, end };
}
