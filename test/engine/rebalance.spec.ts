import { afterAll, afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { kafkaLog } from '@headwater/kafka';
import { PARTITIONS, SharedProcessor, type Handled, type MemberProcess } from './members.js';

const log = kafkaLog({ brokers: process.env['KAFKA_BROKERS']!.split(',') });
let shared: SharedProcessor;

beforeEach(async () => {
  shared = await SharedProcessor.create(log);
});
afterEach(() => shared.close());
afterAll(() => log.close());

/** Who takes over waits for the session and for the open transaction. */
const SHORT = { group: { sessionTimeoutMs: 2_000 }, writer: { transactionTimeoutMs: 2_500 } };

describe('processes that share a processor', () => {
  it('S64 have exactly f(input) and no partition idle while each is restarted in turn under load', async () => {
    shared.load();
    await Promise.all([shared.start(), shared.start(), shared.start()]);
    await shared.isShared();
    for (const member of shared.members.slice()) {
      member.signal('SIGTERM');
      expect(await member.exited).toEqual([0, null]);
      await shared.start();
      await shared.isShared();
    }
    await shared.expectExactly();
    for (const partition of PARTITIONS) expect(longestGap(shared.handled, partition)).toBeLessThan(15_000);
  });

  it('S65 see nothing of one that was stopped past its session, which then joins clean', async () => {
    shared.load();
    const [zombie, other] = await Promise.all([shared.start({ ...SHORT, stalls: 'stopped' }), shared.start(SHORT)]);
    const [own] = zombie.partitionsSince(await shared.isShared());
    const since = performance.now();
    await shared.stall([own!], 0);
    // Only when it has taken over: from then on the brokers refuse the other's work, however much longer that is stopped.
    await other.handles(PARTITIONS, since);
    zombie.signal('SIGCONT');
    await zombie.says('LOG_MEMBER_LOST');
    await zombie.says('This process stood still');
    await shared.isShared();
    await shared.expectExactly();
  });

  it('S66 take over from one whose event loop is blocked past its session, which names the stall', async () => {
    shared.load();
    const [blocked, other] = await Promise.all([shared.start({ ...SHORT, stalls: 'blocked' }), shared.start(SHORT)]);
    await shared.isShared();
    const since = performance.now();
    await shared.stall(PARTITIONS, 4_000);
    await other.handles(PARTITIONS, since);
    await blocked.says('LOG_MEMBER_LOST');
    await blocked.says('This process stood still');
    await shared.isShared();
    await shared.expectExactly();
  });

  it('S73 commit what is in flight on SIGTERM, leave and exit, and the next owner begins within a second', async () => {
    shared.load();
    await Promise.all([shared.start(), shared.start()]);
    const gaps: number[] = [];
    for (let round = 0; round < 3; round++) {
      const [leaving, next] = shared.members.slice(-2) as [MemberProcess, MemberProcess];
      const given = leaving.partitionsSince(await shared.isShared());
      leaving.signal('SIGTERM');
      const signalled = performance.now();
      expect(await leaving.exited).toEqual([0, null]);
      const exited = performance.now();
      await next.handles(given, signalled);
      const first = (partition: number) =>
        next.handled.find((of) => of.partition === partition && of.at > signalled)!.at;
      gaps.push(Math.max(...given.map((partition) => first(partition) - exited)));
      if (round < 2) await shared.start();
    }
    // Of three, because a machine that stands still for a moment is not what this is about.
    expect(gaps.sort((a, b) => a - b)[1]).toBeLessThanOrEqual(1_000);
    expect(gaps[2]).toBeLessThanOrEqual(6_000);
    await shared.expectExactly();
    // What was handled was committed: nobody handled it again.
    const records = shared.handled.map(({ partition, offset }) => `${partition}/${offset}`);
    expect(new Set(records).size).toBe(records.length);
  });
});

function longestGap(handled: readonly Handled[], partition: number): number {
  const times = handled.filter((of) => of.partition === partition).map(({ at }) => at);
  const sorted = times.sort((a, b) => a - b);
  return Math.max(...sorted.slice(1).map((at, i) => at - sorted[i]!));
}
