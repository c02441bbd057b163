import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Assignment, GroupOptions, Log, LogGroup } from '@headwater/core';
import { newTopic, testBrokers, testLog, unique } from './broker.testing.js';
import { until } from './until.testing.js';
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
      until(() => {
        const last = assignments.at(-1);
        return last !== undefined && !last.signal.aborted && last.partitions.length === count ? last : undefined;
      });
    return { group, assignments, errors, running, current };
  }

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
    await until(() => (attempts > 0 ? true : undefined));
    members.push(slow('b'));
    await until(() => (done.length > 0 ? true : undefined));
    await Promise.all(members.map(({ group }) => group.stop()));
    await Promise.all(members.map(({ running }) => running));
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
      const { memberId, generation } = had.membership;
      const former = { groupId, memberId, generation, instanceId: id };
      await gone.group.stop();
      const again = instance(id);
      const given = await again.current(2);
      expect(given.partitions).toEqual(had.partitions);
      expect(given.membership.generation).toBe(generation);
      expect(given.membership.memberId).not.toBe(memberId);
      if (id === 'a') {
        expect(ofB.signal.aborted).toBe(false);
        expect(b.assignments).toEqual([ofB]);
      }
      const writer = log.writer({ transactionalId: unique('writer') });
      await writer.fence();
      const offsets = [{ ...given.partitions[0]!, next: 1 }];
      expect(await writer.transact([], { membership: former, offsets })).toMatchObject({
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
