import { setTimeout as delay } from 'node:timers/promises';
import type { FetchedBatch } from '@headwater/core';
import { seededRandom, type Random } from '@headwater/testing';
import { describe, expect, it } from '@jest/globals';
import { FakeBrokers, type FakePartition } from './fake-brokers.testing.js';
import type { KafkaError } from './kafka.errors.js';
import { KafkaReader } from './reader.js';

/** Sets what happens; when it does is up to the machine. */
const FIRST = Number(process.env['HEADWATER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const SEEDS = 30;
const STEPS = 150;
const TOPICS = ['a', 'b'];
const PARTITIONS = 3;
const LEADERS = [1, 2, 3];
const CORRUPT = 2;
/** OFFSET_NOT_AVAILABLE, LEADER_NOT_AVAILABLE, REPLICA_NOT_AVAILABLE, KAFKA_STORAGE_ERROR: all pass. */
const PASSING = [78, 5, 9, 56];

const ACTS = [
  'move',
  'refuse',
  'corrupt',
  'heal',
  'heal',
  'hang',
  'pause',
  'pause',
  'resume',
  'seek',
  'drop',
  'none',
] as const;

/** One partition, and what a reader of it must be told next. */
interface Followed {
  readonly topic: string;
  readonly partition: number;
  readonly at: FakePartition;
  /** The offset that comes next; undefined: nothing is to be read of it. */
  next: number | undefined;
  isPaused: boolean;
  /** It was corrupt since it was told so last. */
  mayBeCorrupt: boolean;
}

describe('a reader under random moves, refusals, delays, pauses, seeks and ended polls', () => {
  it(`hands out every record once, in order, and nothing of what is paused or dropped (${SEEDS} seeds from ${FIRST})`, async () => {
    const seen = new Map<string, number>();
    const seeds = Array.from({ length: SEEDS }, (_, n) => FIRST + n);
    // All at once: they wait more than they compute.
    const wrong = await Promise.all(seeds.map((seed) => play(seed, seen).catch((cause: unknown) => ({ seed, cause }))));
    expect(wrong.filter((one) => one !== undefined)).toEqual([]);
    for (const what of [...ACTS, 'told corrupt', 'end']) expect([what, seen.get(what) ?? 0]).not.toEqual([what, 0]);
    expect(seen.get('records')).toBeGreaterThan(SEEDS * 100);
  });
});

/** Rejects with what was told wrong. */
async function play(seed: number, seen: Map<string, number>): Promise<void> {
  const random = seededRandom(seed);
  const count = (what: string, by = 1) => seen.set(what, (seen.get(what) ?? 0) + by);
  const brokers = new FakeBrokers();
  const reader = new KafkaReader(brokers, { maxBytes: random.pick([100, 300, 10_000]) });
  const all = TOPICS.flatMap((topic) =>
    brokers
      .topic(topic, ...Array.from({ length: PARTITIONS }, () => random.pick(LEADERS)))
      .map((at, partition): Followed => ({
        topic,
        partition,
        at,
        next: undefined,
        isPaused: false,
        mayBeCorrupt: false,
      })),
  );
  const follow = (of: Followed, offset: number) => {
    reader.seek(of.topic, of.partition, offset);
    of.next = offset;
    of.isPaused = false;
  };
  for (const of of all) follow(of, 0);
  const take = (batches: readonly FetchedBatch[]) => {
    for (const { topic, partition, records, nextOffset } of batches) {
      const of = all.find((one) => one.topic === topic && one.partition === partition)!;
      const found = records.map(({ offset, value }) => [offset, String(value)]);
      const due = found.map((_, n) => [of.next! + n, `${topic}/${partition}:${of.next! + n}`]);
      expect({ topic, partition, isPaused: of.isPaused, found }).toEqual({
        topic,
        partition,
        isPaused: false,
        found: due,
      });
      of.next! += records.length;
      expect(nextOffset).toBe(of.next);
      count('records', records.length);
    }
  };
  const poll = async (options: { maxWaitMs: number; maxBytes?: number; signal?: AbortSignal }) => {
    const batches = await reader.poll(options).catch((error: KafkaError) => {
      const of = all.find(({ topic, partition }) => topic === error.facts.topic && partition === error.facts.partition);
      if (error.code !== 'LOG_CORRUPT' || of?.mayBeCorrupt !== true || of.isPaused) throw error;
      of.mayBeCorrupt = of.at.error === CORRUPT;
      count('told corrupt');
      return [];
    });
    take(batches);
    return batches.length;
  };
  for (let step = 0; step < STEPS; step++) {
    change(random, brokers, all, { count, reader, follow });
    const ending = new AbortController();
    const polling = poll({
      maxWaitMs: random.pick([0, 1, 5, 20, 60]),
      maxBytes: random.pick([1, 150, 100_000]),
      signal: ending.signal,
    });
    if (random.chance(0.1)) {
      await delay(random.below(4));
      ending.abort();
      count('end');
    }
    await polling;
  }
  // All is well again: what is left comes, to the last record.
  brokers.onSend = () => undefined;
  for (const of of all) {
    of.at.error = undefined;
    if (of.next === undefined) follow(of, 0);
    if (of.isPaused) reader.resume(of.topic, of.partition);
    of.isPaused = false;
  }
  brokers.changed();
  while (all.some(({ next, at }) => next! < at.batches.length)) await poll({ maxWaitMs: 1_000 });
  expect(await poll({ maxWaitMs: 5 })).toBe(0);
  await reader.close();
}

/** One thing that happens between two polls, and most often a few records. */
function change(
  random: Random,
  brokers: FakeBrokers,
  all: readonly Followed[],
  {
    count,
    reader,
    follow,
  }: {
    readonly count: (what: string) => void;
    readonly reader: KafkaReader;
    readonly follow: (of: Followed, offset: number) => void;
  },
): void {
  const of = random.pick(all);
  const { topic, partition, at } = of;
  if (random.chance(0.7)) {
    const texts = Array.from(
      { length: 1 + random.below(12) },
      (_, n) => `${topic}/${partition}:${at.batches.length + n}`,
    );
    brokers.add(topic, partition, ...texts);
  }
  const act = random.pick(ACTS);
  count(act);
  if (act === 'move') at.leader = random.pick(LEADERS);
  else if (act === 'refuse') at.error = random.pick(PASSING);
  else if (act === 'corrupt') {
    at.error = CORRUPT;
    of.mayBeCorrupt = true;
  } else if (act === 'heal') for (const one of all) one.at.error = undefined;
  else if (act === 'hang') {
    const [name, ms] = [random.pick(['Fetch', 'Metadata']), random.below(80)];
    brokers.onSend = (apiName) => (apiName === name && random.chance(0.5) ? delay(ms) : undefined);
  } else if (act === 'pause') {
    reader.pause(topic, partition);
    of.isPaused = of.next !== undefined;
  } else if (act === 'resume') {
    reader.resume(topic, partition);
    of.isPaused = false;
  } else if (act === 'seek') follow(of, random.below(at.batches.length + 1));
  else if (act === 'drop') {
    reader.drop(topic, partition);
    of.next = undefined;
    of.isPaused = false;
  }
  brokers.changed();
}
