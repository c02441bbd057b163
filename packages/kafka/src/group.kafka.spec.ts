import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Assignment, GroupOptions, Log, LogGroup } from '@headwater/core';
import { newTopic, testBrokers, testLog, unique } from './broker.testing.js';
import { eventually } from './eventually.testing.js';
import { NewProtocolMember } from './new-protocol-member.testing.js';
import { aborted, wait } from './wait.js';

describe('group', () => {
  let log: Log;
  beforeAll(() => {
    log = testLog();
  });
  afterAll(() => log.close());

  /** A member that does nothing but hold what it is given. */
  function member(groupId: string, topics: readonly string[], from: Log = log, options: Partial<GroupOptions> = {}) {
    const group: LogGroup = from.group({ groupId, topics, ...options });
    const assignments: Assignment[] = [];
    const errors: unknown[] = [];
    const running = group.run(
      async (assignment) => {
        assignments.push(assignment);
        await aborted(assignment.signal);
      },
      (error) => errors.push(error),
    );
    const current = (count: number) =>
      eventually(() => {
        const last = assignments.at(-1);
        return last !== undefined && !last.signal.aborted && last.partitions.length === count ? last : undefined;
      });
    return { group, assignments, errors, running, current };
  }

  const numbersOf = (assignment: Assignment, topic: string): number[] =>
    assignment.partitions.filter((of) => of.topic === topic).map(({ partition }) => partition);

  it('gives the same partition numbers of all topics to one of two members, and all to the one that stays', async () => {
    const [left, right] = [await newTopic(log, 5), await newTopic(log, 5)];
    const groupId = unique('group');
    const a = member(groupId, [left, right]);
    await a.current(10);
    const b = member(groupId, [left, right]);
    const [ofA, ofB] = await Promise.all([a.current(6), b.current(4)]);
    for (const given of [ofA, ofB]) expect(numbersOf(given, left)).toEqual(numbersOf(given, right));
    expect([...numbersOf(ofA, left), ...numbersOf(ofB, left)].sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4]);
    expect(ofA.membership.generation).toBe(ofB.membership.generation);
    expect(a.assignments[0]!.signal.aborted).toBe(true);
    await b.group.stop();
    expect(ofB.signal.aborted).toBe(true);
    await b.running;
    await a.current(10);
    await a.group.stop();
    await a.group.stop();
    await a.running;
    expect([...a.errors, ...b.errors]).toEqual([]);
  });

  it('gets through work that always outlasts the rebalance time-out, with a second member at the door', async () => {
    const topic = await newTopic(log, 1);
    const groupId = unique('group');
    const done: string[] = [];
    let attempts = 0;
    const slow = (name: string) => {
      const group = log.group({ groupId, topics: [topic], sessionTimeoutMs: 2_000, rebalanceTimeoutMs: 1_000 });
      const running = group.run(
        async ({ membership, partitions, signal }) => {
          if (partitions.length === 0) return aborted(signal);
          // A record's handler: it does not hear the signal, and is a little slower each time.
          await wait(2_500 + 300 * attempts++);
          const writer = log.writer({ transactionalId: unique(name) });
          await writer.fence();
          const end = await writer.transact([], { membership, offsets: [{ topic, partition: 0, next: 1 }] });
          await writer.close();
          if (end.outcome === 'committed') done.push(name);
        },
        () => undefined,
      );
      return { group, running };
    };
    const members = [slow('a')];
    await eventually(() => (attempts > 0 ? true : undefined));
    members.push(slow('b'));
    await eventually(() => (done.length > 0 ? true : undefined));
    await Promise.all(members.map(({ group }) => group.stop()));
    await Promise.all(members.map(({ running }) => running));
  });

  it('joins again only after the work of the revoked assignment has settled', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const events: string[] = [];
    let finish: () => void = () => undefined;
    const slow = log.group({ groupId, topics: [topic] });
    const running = slow.run(async ({ signal, partitions }) => {
      events.push(`given ${partitions.length}`);
      await aborted(signal);
      events.push('revoked');
      await new Promise<void>((resolve) => (finish = resolve));
      events.push('settled');
    });
    await eventually(() => (events.includes('given 2') ? true : undefined));
    const other = member(groupId, [topic]);
    await eventually(() => (events.includes('revoked') ? true : undefined));
    expect(other.assignments).toEqual([]);
    finish();
    await other.current(1);
    await eventually(() => (events.includes('given 1') ? true : undefined));
    expect(events).toEqual(['given 2', 'revoked', 'settled', 'given 1']);
    const stopping = slow.stop();
    await eventually(() => (events.filter((of) => of === 'revoked').length === 2 ? true : undefined));
    finish();
    await Promise.all([stopping, running]);
    await other.group.stop();
  });

  it('refuses the offsets of an old generation and takes those of the current one', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const a = member(groupId, [topic]);
    const old = await a.current(2);
    const writer = log.writer({ transactionalId: unique('writer') });
    await writer.fence();
    const offsets = [{ topic, partition: 0, next: 0 }];
    expect(await writer.transact([], { membership: old.membership, offsets })).toMatchObject({ outcome: 'committed' });
    const b = member(groupId, [topic]);
    const current = await a.current(1);
    await b.current(1);
    const late = await writer.transact([{ topic, partition: 1, key: null, value: Buffer.from('late') }], {
      membership: old.membership,
      offsets: [{ topic, partition: 0, next: 99 }],
    });
    expect(late).toMatchObject({ outcome: 'aborted', fenced: 'member', cause: { code: 'LOG_MEMBER_FENCED' } });
    const next = { membership: current.membership, offsets: [{ topic, partition: 0, next: 7 }] };
    expect(await writer.transact([], next)).toMatchObject({ outcome: 'committed' });
    const partitions = [
      { topic, partition: 0 },
      { topic, partition: 1 },
    ];
    expect(await log.admin.committedOffsets(groupId, partitions)).toEqual([
      { topic, partition: 0, next: 7 },
      { topic, partition: 1, next: -1 },
    ]);
    await Promise.all([a.group.stop(), b.group.stop()]);
  });

  it('reports work that fails and runs it again', async () => {
    const topic = await newTopic(log, 1);
    const group = log.group({ groupId: unique('group'), topics: [topic] });
    const errors: unknown[] = [];
    let runs = 0;
    const running = group.run(
      async ({ signal }) => {
        runs++;
        if (runs === 1) throw new Error('first');
        if (runs === 2) await aborted(signal);
      },
      (error) => errors.push(error),
    );
    await eventually(() => (runs === 2 ? true : undefined));
    await group.stop();
    await running;
    expect(errors).toEqual([expect.objectContaining({ message: 'first' })]);
  });

  it('S88 refuses topics of unequal partition counts by name', async () => {
    const [four, six] = [await newTopic(log, 4), await newTopic(log, 6)];
    const group = log.group({ groupId: unique('group'), topics: [four, six] });
    await expect(group.run(async () => undefined)).rejects.toMatchObject({
      code: 'LOG_NOT_COPARTITIONED',
      facts: { counts: { [four]: 4, [six]: 6 } },
    });
  });

  it('takes over from a member that is closed with its log', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const elsewhere = testLog();
    const a = member(groupId, [topic], elsewhere);
    await a.current(2);
    const b = member(groupId, [topic]);
    await b.current(1);
    await elsewhere.close();
    await a.running;
    await b.current(2);
    await b.group.stop();
  });

  it('gives a static member that comes back within its session what it had, and nobody else notices', async () => {
    const topic = await newTopic(log, 4);
    const groupId = unique('group');
    const instance = (instanceId: string) => member(groupId, [topic], log, { instanceId, sessionTimeoutMs: 20_000 });
    const [a, b] = [instance('a'), instance('b')];
    const [ofA, ofB] = await Promise.all([a.current(2), b.current(2)]);
    expect(ofA.membership).toMatchObject({ instanceId: 'a', generation: ofB.membership.generation });
    for (const { id, gone } of [
      { id: 'a', gone: a },
      { id: 'b', gone: b },
    ]) {
      const had = gone.assignments.at(-1)!;
      await gone.group.stop();
      const again = instance(id);
      const given = await again.current(2);
      expect(given.partitions).toEqual(had.partitions);
      expect(given.membership.generation).toBe(had.membership.generation);
      expect(given.membership.memberId).not.toBe(had.membership.memberId);
      if (id === 'a') {
        expect(ofB.signal.aborted).toBe(false);
        expect(b.assignments).toEqual([ofB]);
      }
      const writer = log.writer({ transactionalId: unique('writer') });
      await writer.fence();
      const offsets = [{ ...given.partitions[0]!, next: 1 }];
      expect(await writer.transact([], { membership: had.membership, offsets })).toMatchObject({
        outcome: 'aborted',
        fenced: 'member',
      });
      expect(await writer.transact([], { membership: given.membership, offsets })).toMatchObject({
        outcome: 'committed',
      });
      await writer.close();
    }
    expect([...a.errors, ...b.errors]).toEqual([]);
  });

  it('ends the first of two processes with one instance id, and says why', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const first = member(groupId, [topic], log, { instanceId: 'one' });
    const ended = expect(first.running).rejects.toMatchObject({
      code: 'LOG_INSTANCE_FENCED',
      retryable: false,
      facts: { groupId, instanceId: 'one' },
    });
    const given = await first.current(2);
    const second = member(groupId, [topic], log, { instanceId: 'one' });
    await second.current(2);
    await ended;
    expect(given.signal.aborted).toBe(true);
    expect(second.assignments).toHaveLength(1);
    expect(second.assignments[0]!.signal.aborted).toBe(false);
    await second.group.stop();
    await second.running;
  });

  it('S105 keeps its group while a member of the new protocol that wants into it is refused', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const ours = member(groupId, [topic]);
    const given = await ours.current(2);
    const foreign = await NewProtocolMember.connect(testBrokers()[0]!, groupId, [topic]);
    const answer = await foreign.join();
    expect(answer).toMatchObject({ error: 69, message: expect.stringContaining(groupId) });
    expect(given.signal.aborted).toBe(false);
    expect(ours.errors).toEqual([]);
    await foreign.leave();
    await ours.group.stop();
  });

  it('S105 refuses a group that members of the new protocol have, once and for good', async () => {
    const topic = await newTopic(log, 2);
    const groupId = unique('group');
    const foreign = await NewProtocolMember.connect(testBrokers()[0]!, groupId, [topic]);
    expect(await foreign.join()).toMatchObject({ error: 0, memberEpoch: 1 });
    const ours = member(groupId, [topic]);
    await expect(ours.running).rejects.toMatchObject({ code: 'LOG_GROUP_FOREIGN', facts: { groupId } });
    expect(ours.assignments).toEqual([]);
    expect(ours.errors).toEqual([]);
    await foreign.leave();
  });
});
