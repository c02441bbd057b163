import { describe, expect, it } from '@jest/globals';
import type { Assignment, Log, OutRecord } from '@headwater/core';
import { virtualClock, type VirtualClock } from '../virtual-clock/virtual-clock.js';
import { memoryLog, type MemoryLogOptions } from './memory-log.js';

const topic = 'topic';
const groupId = 'group';
const one = (text: string | null, key: string | null = null): OutRecord[] => [
  {
    topic,
    partition: 0,
    key: key === null ? null : Buffer.from(key),
    value: text === null ? null : Buffer.from(text),
  },
];

/** Runs in virtual time on a log of its own with one topic. */
function inMemory(
  play: (log: ReturnType<typeof memoryLog>, clock: VirtualClock) => Promise<void>,
  { partitions = 1, ...options }: MemoryLogOptions & { partitions?: number } = {},
): Promise<void> {
  const clock = virtualClock(7);
  return clock.run(async () => {
    const log = memoryLog({ clock, ...options });
    await log.admin.ensureTopics([{ topic, partitions, cleanupPolicy: 'delete' }]);
    await play(log, clock);
    await log.close();
  });
}

async function fencedWriter(log: Log, transactionalId = 'writer', transactionTimeoutMs = 8_000) {
  const writer = log.writer({ transactionalId, transactionTimeoutMs });
  await writer.fence();
  return writer;
}

async function readAll(log: Log, from = 0) {
  const reader = log.reader();
  reader.seek(topic, 0, from);
  const batches = await reader.poll({ maxWaitMs: 0 });
  await reader.close();
  return {
    texts: batches.flatMap(({ records }) => records.map(({ offset, value }) => `${offset} ${value?.toString() ?? ''}`)),
    next: batches.at(-1)?.nextOffset ?? from,
  };
}

/** A member that writes down what it is given and what it loses. */
function member(log: Log, more: { sessionTimeoutMs?: number; rebalanceTimeoutMs?: number; instanceId?: string } = {}) {
  const assignments: Assignment[] = [];
  const group = log.group({ groupId, topics: [topic], ...more });
  const running = group.run(async (assignment) => {
    assignments.push(assignment);
    await new Promise<void>((resolve) => assignment.signal.addEventListener('abort', () => resolve()));
  });
  return {
    group,
    running,
    assignments,
    numbers: () => assignments.at(-1)?.partitions.map(({ partition }) => partition),
  };
}

describe('memoryLog in virtual time', () => {
  it('writes markers partition by partition, when they are said to come', () =>
    inMemory(
      async (log, clock) => {
        const writer = await fencedWriter(log);
        const committed = await writer.transact([...one('a'), { topic, partition: 1, key: null, value: null }]);
        expect(committed).toMatchObject({ outcome: 'committed' });
        const stable = async () => (await log.admin.offsets(topic)).map(({ lastStable, high }) => [lastStable, high]);
        expect(await stable()).toEqual([
          [0, 1],
          [2, 2],
        ]);
        await clock.wait(1_001);
        expect(await stable()).toEqual([
          [2, 2],
          [2, 2],
        ]);
      },
      { partitions: 2, markerDelayMs: ({ partition }) => (partition === 0 ? 1_000 : 0) },
    ));

  it('keeps the order of the log and of the offsets when the later transaction gets its markers first', () => {
    const delays = [500, 500, 0, 0];
    return inMemory(
      async (log, clock) => {
        const held = member(log);
        await clock.wait(1);
        const { membership } = held.assignments[0]!;
        const writer = await fencedWriter(log);
        const at = (next: number) => ({ membership, offsets: [{ topic, partition: 0, next }] });
        await writer.transact(one('first'), at(1));
        await writer.transact(one('second'), at(2));
        expect((await readAll(log)).texts).toEqual([]);
        const asked = clock.elapsed();
        expect(await log.admin.committedOffsets(groupId, [{ topic, partition: 0 }])).toEqual([
          { topic, partition: 0, next: 2 },
        ]);
        expect(clock.elapsed() - asked).toBe(500);
        expect((await readAll(log)).texts).toEqual(['0 first', '1 second']);
      },
      { markerDelayMs: () => delays.shift() ?? 0 },
    );
  });

  it('fences only when the markers of the transactions before have landed', () =>
    inMemory(
      async (log, clock) => {
        const writer = await fencedWriter(log);
        await writer.transact(one('a'));
        const successor = await fencedWriter(log);
        expect(clock.elapsed()).toBe(300);
        expect(await successor.transact(one('b'))).toMatchObject({ outcome: 'committed' });
        expect(await writer.transact(one('c'))).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
      },
      { markerDelayMs: () => 300 },
    ));

  it('compacts to the last record per key, keeps offsets, and reads over the gaps', () =>
    inMemory(async (log) => {
      const writer = await fencedWriter(log);
      for (let n = 0; n < 50; n++) await writer.transact(one(`${n}`, n % 2 === 0 ? 'even' : 'odd'));
      const aborted = writer.begin();
      await aborted.append(one('aborted', 'even'));
      await aborted.abort();
      await writer.transact(one(null, 'odd'));
      log.compact(topic);
      expect(await readAll(log)).toEqual({ texts: ['96 48', '102 '], next: 104 });
      log.compact(topic);
      expect(await readAll(log, 97)).toEqual({ texts: [], next: 104 });
      expect(await log.admin.offsets(topic)).toMatchObject([{ start: 0, lastStable: 104, high: 104 }]);
    }));

  it('compacts nothing of an open transaction, nor what it may yet not replace', () =>
    inMemory(async (log) => {
      const writer = await fencedWriter(log);
      await writer.transact(one('kept', 'k'));
      const open = writer.begin();
      await open.append(one('open', 'k'));
      log.compact(topic);
      await open.abort();
      expect((await readAll(log)).texts).toEqual(['0 kept']);
    }));

  it('deletes records below an offset and refuses to read there', () =>
    inMemory(async (log) => {
      const writer = await fencedWriter(log);
      for (const text of ['a', 'b', 'c']) await writer.transact(one(text));
      log.deleteRecords(topic, 0, 3);
      await expect(readAll(log)).rejects.toMatchObject({
        code: 'LOG_OFFSET_OUT_OF_RANGE',
        facts: { offset: 0, start: 3, high: 6 },
      });
      expect((await readAll(log, 3)).texts).toEqual(['4 c']);
    }));

  it('aborts a transaction exactly when its time is over', () =>
    inMemory(async (log, clock) => {
      const writer = await fencedWriter(log, 'writer', 5_000);
      for (const [waitMs, outcome] of [
        [4_999, 'committed'],
        [5_000, 'aborted'],
      ] as const) {
        const transaction = writer.begin();
        await transaction.append(one(outcome));
        await clock.wait(waitMs);
        await clock.wait(0);
        expect(await transaction.commit()).toMatchObject({ outcome });
      }
      expect((await readAll(log)).texts).toEqual(['0 committed']);
    }));

  it('gives the partitions of a killed process away when its session is over, and refuses its late commit', () =>
    inMemory(
      async (log, clock) => {
        const doomed = log.client();
        const first = member(doomed.log, { sessionTimeoutMs: 6_000 });
        await clock.wait(1);
        const second = member(log);
        await clock.wait(1);
        expect([first.numbers()!.length, second.numbers()!.length]).toEqual([2, 2]);
        doomed.kill();
        await clock.wait(5_990);
        expect(second.numbers()!).toHaveLength(2);
        await clock.wait(20);
        expect(second.numbers()).toEqual([0, 1, 2, 3]);
        const late = await (
          await fencedWriter(log)
        ).transact([], {
          membership: first.assignments.at(-1)!.membership,
          offsets: [{ topic, partition: 0, next: 9 }],
        });
        expect(late).toMatchObject({ outcome: 'aborted', fenced: 'member' });
      },
      { partitions: 4 },
    ));

  it('holds everything of a paused process back, and tells it what it lost when it goes on', () =>
    inMemory(async (log, clock) => {
      const process = log.client();
      const held = member(process.log, { sessionTimeoutMs: 6_000 });
      await clock.wait(1);
      const waited: string[] = [];
      void process.clock.wait(10).then(() => waited.push('waited'));
      void process.log.admin.partitionCounts([topic]).then(() => waited.push('asked'));
      process.pause();
      await clock.wait(5_000);
      expect(waited).toEqual([]);
      process.resume();
      await clock.wait(2_000);
      expect(waited.sort()).toEqual(['asked', 'waited']);
      // In time: it is still the member.
      expect([held.assignments.length, held.assignments[0]!.signal.aborted]).toEqual([1, false]);
      process.pause();
      await clock.wait(7_000);
      expect(held.assignments[0]!.signal.aborted).toBe(false);
      process.resume();
      await clock.wait(1);
      expect([held.assignments.length, held.assignments[0]!.signal.aborted]).toEqual([2, true]);
    }));

  it('throws a member out that does not end its work in time', () =>
    inMemory(
      async (log, clock) => {
        const doomed = log.client();
        const stuck = doomed.log.group({ groupId, topics: [topic], rebalanceTimeoutMs: 15_000 });
        void stuck.run(() => new Promise(() => undefined));
        await clock.wait(1);
        const other = member(log);
        await clock.wait(14_990);
        expect(other.numbers()).toEqual([]);
        await clock.wait(20);
        expect(other.numbers()).toEqual([0, 1]);
        doomed.kill();
      },
      { partitions: 2 },
    ));

  it('gives a static member that comes back its partitions without a rebalance', () =>
    inMemory(
      async (log, clock) => {
        const former = log.client();
        const first = member(former.log, { instanceId: 'one' });
        const other = member(log);
        await clock.wait(1);
        const had = first.numbers();
        const given = other.assignments.length;
        former.kill();
        const again = member(log.client().log, { instanceId: 'one' });
        await clock.wait(10_000);
        expect([again.numbers(), other.assignments.length]).toEqual([had, given]);
      },
      { partitions: 4 },
    ));

  it('ends the first of two live processes that call themselves the same instance', () =>
    inMemory(async (log, clock) => {
      const first = member(log.client().log, { instanceId: 'one' });
      const ended = expect(first.running).rejects.toMatchObject({ code: 'LOG_INSTANCE_FENCED' });
      await clock.wait(1);
      const second = member(log, { instanceId: 'one' });
      await ended;
      expect([first.assignments[0]!.signal.aborted, second.numbers()]).toEqual([true, [0]]);
    }));

  it('lets a request arrive late, when its sender has given up, but not past a fence', () =>
    inMemory(async (log, clock) => {
      const slow = log.client({
        requestTimeoutMs: 1_000,
        fault: ({ request }) => (request === 'commit' ? { act: 'late-request', lateMs: 2_000 } : undefined),
      });
      const writer = await fencedWriter(slow.log);
      expect(await writer.transact(one('late'))).toMatchObject({ outcome: 'unknown' });
      expect((await readAll(log)).texts).toEqual([]);
      await clock.wait(1_001);
      expect((await readAll(log)).texts).toEqual(['0 late']);
      await writer.fence();
      expect(await writer.transact(one('fenced'))).toMatchObject({ outcome: 'unknown' });
      await writer.fence();
      await clock.wait(5_000);
      expect((await readAll(log)).texts).toEqual(['0 late']);
    }));

  it('refuses one request as it is told, and loses an append with its transaction', () =>
    inMemory(async (log) => {
      const faults: Record<string, 'lose-request' | 'lose-answer'> = {};
      const { log: faulty } = log.client({
        fault: ({ request }) => (faults[request] === undefined ? undefined : { act: faults[request] }),
      });
      const writer = await fencedWriter(faulty);
      for (const act of ['lose-request', 'lose-answer'] as const) {
        faults['append'] = act;
        expect(await writer.transact(one(act))).toMatchObject({
          outcome: 'aborted',
          cause: { code: 'KAFKA_UNREACHABLE' },
        });
        delete faults['append'];
        expect(await writer.transact(one('kept'))).toMatchObject({ outcome: 'committed' });
      }
      const refusing = log.client({
        fault: ({ request }) => (request === 'poll' ? { act: 'refuse', error: new Error('as told') } : undefined),
      });
      await expect(readAll(refusing.log)).rejects.toThrow('as told');
      expect((await readAll(log)).texts.map((text) => text.split(' ')[1])).toEqual(['kept', 'kept']);
    }));
});
