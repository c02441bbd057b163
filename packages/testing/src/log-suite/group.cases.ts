import { expect, it } from '@jest/globals';
import type { Assignment } from '@headwater/core';
import { eventually } from '../eventually.js';
import { uniqueName } from '../unique-name.js';
import { aborted, keyed, one, recordsOf, type Bench } from './log-under-test.js';

export function groupCases(bench: Bench): void {
  const numbersOf = (assignment: Assignment, topic: string): number[] =>
    assignment.partitions.filter((of) => of.topic === topic).map(({ partition }) => partition);

  it('S108 gives the same partition numbers of all topics to one of two members, and all to the one that stays', async () => {
    const [left, right] = [await bench.topic(5), await bench.topic(5)];
    const groupId = uniqueName('group');
    const a = bench.member(groupId, [left, right]);
    const alone = await a.holding(10);
    const b = bench.member(groupId, [left, right]);
    const [ofA, ofB] = await Promise.all([a.holding(6), b.holding(4)]);
    for (const given of [ofA, ofB]) expect(numbersOf(given, left)).toEqual(numbersOf(given, right));
    expect([...numbersOf(ofA, left), ...numbersOf(ofB, left)].sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4]);
    // What stays is what it had.
    expect(alone.partitions).toEqual(expect.arrayContaining([...ofA.partitions]));
    expect(ofA.membership.generation).toBe(ofB.membership.generation);
    expect(alone.signal.aborted).toBe(true);
    await b.group.stop();
    expect(ofB.signal.aborted).toBe(true);
    await b.running;
    await a.holding(10);
    await a.group.stop();
    await a.group.stop();
    await a.running;
    expect([...a.errors, ...b.errors]).toEqual([]);
  });

  it('S108 awaits the work of a revoked assignment before the next owner begins', async () => {
    const topic = await bench.topic(2);
    const groupId = uniqueName('group');
    const events: string[] = [];
    let finish: () => void = () => undefined;
    const slow = bench.log.group({ groupId, topics: [topic] });
    const running = slow.run(async ({ signal, partitions }) => {
      events.push(`given ${partitions.length}`);
      await aborted(signal);
      events.push('revoked');
      await new Promise<void>((resolve) => (finish = resolve));
      events.push('settled');
    });
    await eventually(() => expect(events).toContain('given 2'));
    const other = bench.member(groupId, [topic]);
    await eventually(() => expect(events).toContain('revoked'));
    expect(other.assignments.flatMap(({ partitions }) => partitions)).toEqual([]);
    finish();
    await other.holding(1);
    await eventually(() => expect(events).toEqual(['given 2', 'revoked', 'settled', 'given 1']));
    const stopping = slow.stop();
    await eventually(() => expect(events.filter((of) => of === 'revoked')).toHaveLength(2));
    finish();
    await Promise.all([stopping, running]);
    await other.group.stop();
  });

  it('S64 S108 gives on what is given back, and leaves alone what stays, whose offsets are taken all the while', async () => {
    const topic = await bench.topic(4);
    const groupId = uniqueName('group');
    const a = bench.holder(groupId, [topic]);
    await a.holding(4);
    const tenure = a.tenures[0]!;
    const { generation } = tenure.membership;
    const writer = await bench.writer();
    const committed = async (partition: number, next: number) => {
      const offsets = [{ topic, partition, next }];
      expect(await writer.transact([], { membership: tenure.membership, offsets })).toMatchObject({
        outcome: 'committed',
      });
    };
    await committed(0, 1);
    const b = bench.holder(groupId, [topic]);
    const shares = await a.holding(4, 2);
    expect(tenure.membership.generation).toBeGreaterThan(generation);
    // Until it is given back it has one owner, the one who holds it.
    for (const { partition } of shares) await committed(partition, 5);
    await b.holding(0);
    const [kept, asked] = [true, false].map((stays) => shares.filter(({ signal }) => signal.aborted !== stays));
    for (const share of asked!) share.release();
    expect((await b.holding(2)).map(({ partition }) => partition)).toEqual(asked!.map(({ partition }) => partition));
    expect(await a.holding(2)).toEqual(kept);
    for (const { partition } of kept!) await committed(partition, 6);
    const moved = asked!.map(({ partition }) => ({ topic, partition }));
    expect(await bench.log.admin.committedOffsets(groupId, moved)).toEqual(moved.map((of) => ({ ...of, next: 5 })));
    await b.group.stop();
    // What stayed is what it was from the first.
    expect((await a.holding(4)).filter((share) => kept!.includes(share))).toEqual(kept);
    expect([a.tenures.length, tenure.signal.aborted, ...a.errors, ...b.errors]).toEqual([1, false]);
    await a.group.stop();
    await a.running;
    expect([tenure.signal.aborted, ...kept!.map(({ signal }) => signal.aborted)]).toEqual([true, true, true]);
  });

  it('S64 S108 leaves no partition without an owner when a static member restarts in the middle of a hand-over', async () => {
    const topic = await bench.topic(4);
    const groupId = uniqueName('group');
    const options = { instanceId: 'a', sessionTimeoutMs: 20_000 };
    const former = bench.holder(groupId, [topic], options);
    await former.holding(4);
    const other = bench.holder(groupId, [topic]);
    await former.holding(4, 2);
    // It ends with what it was asked for, and keeps its place.
    await former.group.stop();
    const again = bench.holder(groupId, [topic], options);
    const held = await Promise.all([again.holding(2), other.holding(2)]);
    expect(
      held
        .flat()
        .map(({ partition }) => partition)
        .sort((a, b) => a - b),
    ).toEqual([0, 1, 2, 3]);
    await Promise.all([again.group.stop(), other.group.stop()]);
  });

  it('S67 S108 goes on without a member that does not give back in time, and takes no more of its offsets', async () => {
    const topic = await bench.topic(2);
    const groupId = uniqueName('group');
    const a = bench.holder(groupId, [topic], { rebalanceTimeoutMs: 500 });
    await a.holding(2);
    const [tenure] = a.tenures;
    const b = bench.holder(groupId, [topic]);
    await eventually(() => expect(b.shares()).toHaveLength(2));
    expect(tenure!.signal.aborted).toBe(true);
    expect(a.errors).toEqual([expect.objectContaining({ code: 'LOG_MEMBER_LOST' })]);
    const writer = await bench.writer();
    const late = await writer.transact(one(topic, 'late'), {
      membership: tenure!.membership,
      offsets: [{ topic, partition: 0, next: 9 }],
    });
    expect(late).toMatchObject({ outcome: 'aborted', fenced: 'member' });
    // It joins anew, with nothing.
    const [asked] = (await b.holding(2, 1)).filter(({ signal }) => signal.aborted);
    asked!.release();
    expect((await a.holding(1)).map(({ partition }) => partition)).toEqual([asked!.partition]);
    expect(a.tenures).toHaveLength(2);
    await Promise.all([a.group.stop(), b.group.stop()]);
  });

  it('S108 refuses the offsets of an old generation with all that is beside them, and takes those of the current one', async () => {
    const topic = await bench.topic(2);
    const groupId = uniqueName('group');
    const a = bench.member(groupId, [topic]);
    const old = await a.holding(2);
    const writer = await bench.writer();
    const offsets = [{ topic, partition: 0, next: 0 }];
    expect(await writer.transact([], { membership: old.membership, offsets })).toMatchObject({ outcome: 'committed' });
    const b = bench.member(groupId, [topic]);
    const current = await a.holding(1);
    await b.holding(1);
    const late = await writer.transact(one(topic, 'late'), {
      membership: old.membership,
      offsets: [{ topic, partition: 0, next: 99 }],
    });
    expect(late).toMatchObject({ outcome: 'aborted', fenced: 'member', cause: { code: 'LOG_MEMBER_FENCED' } });
    const stranger = { groupId, memberId: 'nobody', generation: current.membership.generation };
    expect(await writer.transact([], { membership: stranger, offsets })).toMatchObject({ fenced: 'member' });
    const next = { membership: current.membership, offsets: [{ topic, partition: 0, next: 7 }] };
    expect(await writer.transact([], next)).toMatchObject({ outcome: 'committed' });
    const partitions = [
      { topic, partition: 0 },
      { topic, partition: 1 },
    ];
    expect(await bench.log.admin.committedOffsets(groupId, partitions)).toEqual([
      { topic, partition: 0, next: 7 },
      { topic, partition: 1, next: -1 },
    ]);
    expect(await bench.texts(topic)).toEqual([]);
    await Promise.all([a.group.stop(), b.group.stop()]);
  });

  it('S108 commits offsets with their transaction and not without it', async () => {
    const topic = await bench.topic();
    const groupId = uniqueName('group');
    const member = bench.member(groupId, [topic]);
    const { membership } = await member.holding(1);
    const writer = await bench.writer();
    const at = (next: number) => ({ membership, offsets: [{ topic, partition: 0, next }] });
    const committed = async () => (await bench.log.admin.committedOffsets(groupId, [{ topic, partition: 0 }]))[0]!.next;
    expect(await writer.transact(one(topic, 'one'), at(1))).toMatchObject({ outcome: 'committed' });
    expect(await committed()).toBe(1);
    // The record dooms the transaction: its offsets are as if they had never been sent.
    const doomed = await writer.transact([{ topic, partition: 0, key: null, value: Buffer.alloc(1_100_000) }], at(2));
    expect(doomed).toMatchObject({ outcome: 'aborted', cause: { code: 'RECORD_TOO_LARGE' } });
    expect(await committed()).toBe(1);
    for (let next = 3; next < 10; next++)
      expect(await writer.transact(one(topic, `${next}`), at(next))).toMatchObject({ outcome: 'committed' });
    expect(await committed()).toBe(9);
    await member.group.stop();
  });

  it('S108 answers the offsets of a group only when the transaction that carries them has ended', async () => {
    const topic = await bench.topic();
    const groupId = uniqueName('group');
    const member = bench.member(groupId, [topic]);
    const { membership } = await member.holding(1);
    const { log, lose } = await bench.lossy();
    const writer = await bench.writer({ transactionTimeoutMs: 3_000 }, log);
    lose('request');
    const offsets = [{ topic, partition: 0, next: 5 }];
    expect(await writer.transact([], { membership, offsets })).toMatchObject({ outcome: 'unknown' });
    lose('nothing');
    let answered = false;
    const asking = bench.log.admin.committedOffsets(groupId, [{ topic, partition: 0 }]).finally(() => {
      answered = true;
    });
    expect(await bench.log.admin.partitionCounts([topic])).toEqual(new Map([[topic, 1]]));
    expect(answered).toBe(false);
    await writer.fence();
    expect(await asking).toEqual([{ topic, partition: 0, next: -1 }]);
    await member.group.stop();
  });

  it('S108 hands work over in mid-stream without losing or doubling a record', async () => {
    const [input, output] = [await bench.topic(4), await bench.topic(4)];
    const groupId = uniqueName('group');
    const count = 200;
    const writer = await bench.writer();
    await writer.transact(Array.from({ length: count }, (_, n) => keyed(input, `${n}`)));
    const copied = async () => (await bench.committed(output)).length;
    const first = copier(bench, groupId, input, output, 5);
    await eventually(async () => expect(await copied()).toBeGreaterThan(20));
    const second = copier(bench, groupId, input, output, 40);
    await eventually(() => expect(second.assignments).toBeGreaterThan(0));
    await first.stop();
    await eventually(async () => expect(await copied()).toBeGreaterThanOrEqual(count), { timeoutMs: 30_000 });
    await second.stop();
    expect(await bench.texts(output)).toEqual(await bench.texts(input));
  });

  it('S108 reports work that fails and runs it again', async () => {
    const topic = await bench.topic();
    const group = bench.log.group({ groupId: uniqueName('group'), topics: [topic] });
    const errors: unknown[] = [];
    let runs = 0;
    const running = group.run(
      async ({ signal }) => {
        runs++;
        if (runs === 1) throw new Error('first');
        await aborted(signal);
      },
      (error) => errors.push(error),
    );
    await eventually(() => expect(runs).toBe(2));
    await expect(group.run(async () => undefined)).rejects.toMatchObject({ code: 'LOG_OPTIONS_INVALID' });
    await group.stop();
    await running;
    expect(errors).toEqual([expect.objectContaining({ message: 'first' })]);
  });

  it('S88 S108 refuses topics of unequal partition counts by name', async () => {
    const [four, six] = [await bench.topic(4), await bench.topic(6)];
    const group = bench.log.group({ groupId: uniqueName('group'), topics: [four, six] });
    await expect(group.run(async () => undefined)).rejects.toMatchObject({
      code: 'LOG_NOT_COPARTITIONED',
      facts: { counts: { [four]: 4, [six]: 6 } },
    });
  });

  it('S108 takes over from a member that is closed with its log', async () => {
    const topic = await bench.topic(2);
    const groupId = uniqueName('group');
    const elsewhere = await bench.another();
    const a = bench.member(groupId, [topic], elsewhere);
    await a.holding(2);
    const b = bench.member(groupId, [topic]);
    await b.holding(1);
    await elsewhere.close();
    await a.running;
    await b.holding(2);
    await b.group.stop();
  });
}

/** Copies input to output, `size` records per transaction, exactly once: a small engine on the port. */
function copier(bench: Bench, groupId: string, input: string, output: string, size: number) {
  const group = bench.log.group({ groupId, topics: [input] });
  const writer = bench.log.writer({ transactionalId: uniqueName('copier') });
  const copier = { assignments: 0, stop: () => group.stop() };
  const work = async ({ membership, partitions, signal }: Assignment): Promise<void> => {
    copier.assignments++;
    await writer.fence();
    const reader = bench.log.reader();
    for (const { topic, partition, next } of await bench.log.admin.committedOffsets(groupId, partitions))
      reader.seek(topic, partition, Math.max(0, next));
    while (!signal.aborted) {
      const records = recordsOf(await reader.poll({ signal, maxWaitMs: 100 }));
      for (let from = 0; from < records.length && !signal.aborted; from += size) {
        const batch = records.slice(from, from + size);
        const next = new Map(batch.map(({ partition, offset }) => [partition, offset + 1]));
        const end = await writer.transact(
          batch.map(({ partition, key, value }) => ({ topic: output, partition, key, value })),
          { membership, offsets: [...next].map(([partition, to]) => ({ topic: input, partition, next: to })) },
        );
        if (end.outcome !== 'committed') throw end.cause;
      }
    }
    await reader.close();
  };
  void group.run(work);
  return copier;
}
