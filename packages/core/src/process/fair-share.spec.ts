import { beforeEach, describe, expect, it } from '@jest/globals';
import { HeadwaterError } from '../errors/headwater.error.js';
import type { FetchedBatch, LogReader } from '../log/log.js';
import { FairShare } from './fair-share.js';
import type { Task } from './task.js';

/** As much as a fair share looks at. */
interface FakeTask {
  readonly partition: number;
  queued: number;
  queuedBytes: number;
  enqueue(batch: FetchedBatch): void;
}

let calls: string[];
let tasks: FakeTask[];
let share: FairShare;
beforeEach(() => {
  calls = [];
  const note = (what: string) => (topic: string, partition: number) => void calls.push(`${what} ${topic}/${partition}`);
  const reader: LogReader = {
    seek: note('seek'),
    drop: note('drop'),
    pause: note('pause'),
    resume: note('resume'),
    poll: () => Promise.resolve([]),
    close: () => Promise.resolve(),
  };
  tasks = [0, 1].map((partition) => ({ partition, queued: 0, queuedBytes: 0, enqueue: () => undefined }));
  const known = new Map(tasks.map((task) => [task.partition, task as Task]));
  share = new FairShare(reader, known);
  for (const [partition, task] of known) {
    share.add(
      task,
      ['a', 'b'].map((topic) => ({ topic, partition, next: 0 })),
    );
  }
  calls = [];
});

const corrupt = (topic: string, partition: number) =>
  new HeadwaterError('LOG_CORRUPT', 'a batch', { facts: { topic, partition, offset: 7 } });
const batchOf = (topic: string, partition: number): FetchedBatch => ({
  topic,
  partition,
  from: 0,
  records: [],
  nextOffset: 1,
  lastStableOffset: 1,
  highWatermark: 1,
});
const unreadable = () => [...share.unreadable].map(([partition, { code }]) => [partition, code]);

describe('a fair share', () => {
  it('holds back what has its share until it has worked off half of it', () => {
    tasks[1]!.queued = 3_001;
    expect(share.balance(0)).toEqual({ canRead: true, hasFull: true });
    tasks[1]!.queued = 1_501;
    share.balance(1);
    expect(calls).toEqual(['pause a/1', 'pause b/1']);
    tasks[1]!.queued = 1_500;
    expect(share.balance(2)).toEqual({ canRead: true, hasFull: false });
    expect(calls.slice(2)).toEqual(['resume a/1', 'resume b/1']);
    for (const task of tasks) task.queuedBytes = 8_000_001;
    expect(share.balance(3)).toEqual({ canRead: false, hasFull: true });
  });

  it('lets a task rest whose input cannot be read, longer each time, at most half a minute, until something comes of it', () => {
    const rests: number[] = [];
    let now = 0;
    for (let attempts = 1; attempts <= 7; attempts++) {
      expect(share.letRest(corrupt('a', 1), now)).toEqual({ partition: 1, attempts });
      const from = now;
      share.balance(now);
      while (calls.at(-1) !== 'resume b/1') share.balance(++now);
      rests.push(now - from);
      expect(unreadable()).toEqual([[1, 'LOG_CORRUPT']]);
    }
    expect(rests).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    share.take(batchOf('b', 1));
    expect(unreadable()).toHaveLength(1);
    share.take(batchOf('a', 1));
    expect(unreadable()).toEqual([]);
    expect(share.letRest(corrupt('a', 1), now)).toEqual({ partition: 1, attempts: 1 });
  });

  it('counts an input as readable that was asked for without an error for a while, when nothing comes of it', () => {
    share.letRest(corrupt('a', 0), 0);
    share.letRest(corrupt('a', 1), 0);
    expect(share.balance(999)).toEqual({ canRead: false, hasFull: false });
    expect(share.balance(1_000)).toEqual({ canRead: true, hasFull: false });
    share.balance(6_000);
    expect(unreadable()).toHaveLength(2);
    share.balance(6_001);
    expect(unreadable()).toEqual([]);
    // Nobody asks for one that has its share.
    share.letRest(corrupt('a', 1), 7_000);
    tasks[1]!.queued = 9_000;
    for (const now of [7_000, 8_000, 20_000]) share.balance(now);
    tasks[1]!.queued = 0;
    share.balance(20_001);
    expect(unreadable()).toHaveLength(1);
  });

  it('leaves to others what is not of an input, or is a question of where to go on', () => {
    const facts = { topic: 'a', partition: 1 };
    for (const error of [
      new Error('broken'),
      new HeadwaterError('KAFKA_REFUSED', 'no', { facts: { topic: 'a' } }),
      corrupt('c', 1),
      corrupt('a', 2),
      new HeadwaterError('LOG_OFFSET_OUT_OF_RANGE', 'gone', { facts }),
      new HeadwaterError('LOG_TOPIC_RECREATED', 'another', { facts }),
    ])
      expect(share.letRest(error, 0)).toBeUndefined();
    expect(unreadable()).toEqual([]);
  });

  it('forgets a task that is removed, resting or not', () => {
    share.letRest(corrupt('a', 1), 0);
    share.balance(0);
    share.remove(tasks[1] as Task);
    expect([unreadable(), calls.slice(-2)]).toEqual([[], ['drop a/1', 'drop b/1']]);
  });
});
