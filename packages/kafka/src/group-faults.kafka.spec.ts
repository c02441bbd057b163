import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { errorCode, type Assignment, type GroupOptions, type Log, type Outcome, type Tenure } from '@headwater/core';
import { eventually, faultProxy, uniqueName, type FaultProxy } from '@headwater/testing';
import { decodeAssignment, decodeOwned, encodeAssignment } from './assignment-codec.js';
import { committedRecords, newTopic, testBrokers, testLog, texts } from './broker.testing.js';
import { ByteWriter } from './bytes.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { GROUP, type Call } from './requests/call.js';
import { heartbeat, joinGroup, leaveGroup, syncGroup } from './requests/group.js';
import { aborted } from './wait.js';
import { Wire } from './wire.js';

let closing: (() => Promise<void>)[];
let log: Log;

beforeEach(() => {
  closing = [];
  log = openLog();
});
afterEach(async () => {
  for (const close of closing.reverse()) await close();
});

function openLog(proxy?: FaultProxy): Log {
  const opened = testLog(proxy === undefined ? {} : { connect: proxy.connect });
  closing.push(() => opened.close());
  return opened;
}

async function openProxy(): Promise<FaultProxy> {
  const [host = '', port = ''] = testBrokers()[0]!.split(':');
  const proxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
  closing.push(() => proxy.close());
  return proxy;
}

/** A member that does nothing but hold what it is given. */
class Holder {
  readonly assignments: Assignment[] = [];
  readonly errors: unknown[] = [];
  readonly #group;
  readonly #running: Promise<void>;

  constructor(from: Log, options: GroupOptions) {
    this.#group = from.group({ sessionTimeoutMs: 1_000, ...options });
    this.#running = this.#group.run(
      async (assignment) => {
        this.assignments.push(assignment);
        await aborted(assignment.signal);
      },
      (error) => this.errors.push(error),
    );
  }

  get current(): Assignment | undefined {
    const last = this.assignments.at(-1);
    return last === undefined || last.signal.aborted ? undefined : last;
  }

  async holding(count: number): Promise<Assignment> {
    return eventually(() => {
      expect(this.current?.partitions).toHaveLength(count);
      return this.current!;
    });
  }

  async stop(): Promise<void> {
    await this.#group.stop();
    await this.#running;
  }
}

/** A member that gives back what it is asked for at once. */
class Giver {
  readonly tenures: Tenure[] = [];
  readonly errors: unknown[] = [];
  readonly #group;
  readonly #running: Promise<void>;

  constructor(from: Log, options: GroupOptions) {
    this.#group = from.group({ sessionTimeoutMs: 10_000, ...options });
    this.#running = this.#group.hold(
      async (tenure) => {
        this.tenures.push(tenure);
        while (!tenure.signal.aborted) {
          await tenure.next();
        }
      },
      (error) => this.errors.push(error),
    );
  }

  holding(count: number): Promise<void> {
    return eventually(() => expect(this.tenures.at(-1)?.shares).toHaveLength(count));
  }

  async stop(): Promise<void> {
    await this.#group.stop();
    await this.#running;
  }
}

function block(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

function stallNamed(error: unknown): number {
  return Number(/LOG_MEMBER_LOST.*This process stood still for (\d+) ms/.exec(String(error))?.[1]);
}

describe('a group in trouble', () => {
  it.each(['JoinGroup', 'SyncGroup'])(
    'S69 goes on in the next generation with offsets that were sent in the one before, %s on its way',
    async (late) => {
      const topic = await newTopic(log, 2);
      const groupId = uniqueName('group');
      const proxy = await openProxy();
      const own = openLog(proxy);
      const stays = new Giver(own, { groupId, topics: [topic] });
      await stays.holding(2);
      const [tenure] = stays.tenures;
      const { generation } = tenure!.membership;
      const writer = own.writer({ transactionalId: uniqueName('writer') });
      await writer.fence();
      let refused = 0;
      proxy.decide = ({ apiName }) => {
        if (apiName === 'TxnOffsetCommit') return { at: 'response', act: 'delay', ms: 0, onStrike: () => refused++ };
        return apiName === late ? { at: 'response', act: 'hold' } : undefined;
      };
      const comes = new Giver(log, { groupId, topics: [topic] });
      // The broker has made the generation, and the member does not know it yet.
      await proxy.strikes(1);
      const offsets = [{ topic, partition: tenure!.shares[0]!.partition, next: 3 }];
      const value = Buffer.from('between');
      const transacting = writer.transact([{ topic, partition: 0, key: null, value }], {
        membership: tenure!.membership,
        offsets,
      });
      await eventually(() => expect(refused).toBe(1));
      expect(tenure!.membership.generation).toBe(generation);
      proxy.decide = () => undefined;
      await proxy.release();
      expect(await transacting).toMatchObject({ outcome: 'committed' });
      expect(tenure!.membership.generation).toBeGreaterThan(generation);
      await Promise.all([stays.holding(1), comes.holding(1)]);
      expect(await log.admin.committedOffsets(groupId, offsets)).toEqual(offsets);
      expect(texts(await committedRecords(log, topic))).toEqual(['between']);
      expect([stays.tenures.length, ...stays.errors, ...comes.errors]).toEqual([1]);
      await Promise.all([stays.stop(), comes.stop()]);
    },
  );

  it('S71 takes everything from a static member that cannot know whether the plan it got is of the generation it joined', async () => {
    const topic = await newTopic(log, 2);
    const groupId = uniqueName('group');
    const proxy = await openProxy();
    const stays = new Giver(openLog(proxy), { groupId, topics: [topic], instanceId: 'stays' });
    await stays.holding(2);
    let syncs = 0;
    // Asked again it tells a plan: as a coordinator would that has just taken over, and made another generation of that number.
    proxy.decide = ({ apiName }) =>
      apiName === 'SyncGroup' && syncs++ === 0 ? { at: 'response', act: 'close' } : undefined;
    const comes = new Giver(log, { groupId, topics: [topic] });
    await eventually(() => expect(stays.tenures).toHaveLength(2));
    expect(stays.tenures[0]!.signal.aborted).toBe(true);
    expect(String(stays.errors[0])).toContain('made a generation without this member');
    await Promise.all([stays.holding(1), comes.holding(1)]);
    expect([stays.errors.length, ...comes.errors]).toEqual([1]);
    await Promise.all([stays.stop(), comes.stop()]);
  });

  it('S71 takes everything from a member that has missed a generation', async () => {
    const topic = await newTopic(log, 6);
    const groupId = uniqueName('group');
    const [seen, proxy] = [await openProxy(), await openProxy()];
    let joins = 0;
    seen.decide = ({ apiName }) => {
      if (apiName === 'JoinGroup') joins++;
      return undefined;
    };
    const leads = new Giver(openLog(seen), { groupId, topics: [topic] });
    await leads.holding(6);
    const misses = new Giver(openLog(proxy), { groupId, topics: [topic] });
    await Promise.all([leads.holding(3), misses.holding(3)]);
    const [tenure] = misses.tenures;
    const { generation } = tenure!.membership;
    proxy.decide = ({ apiName }) => (apiName === 'JoinGroup' ? { at: 'response', act: 'hold' } : undefined);
    const third = new Giver(log, { groupId, topics: [topic] });
    await proxy.strikes(1);
    // The next generation begins before the member has heard of this one.
    const before = joins;
    const fourth = new Giver(log, { groupId, topics: [topic] });
    await eventually(() => expect(joins).toBeGreaterThan(before));
    proxy.decide = () => undefined;
    proxy.cutAll();
    await eventually(() => expect(misses.tenures).toHaveLength(2));
    expect([tenure!.signal.aborted, await tenure!.membership.renewed!(generation)]).toEqual([true, false]);
    expect(misses.errors.map((error) => errorCode(error))).toEqual(['LOG_MEMBER_LOST']);
    const all = [leads, misses, third, fourth];
    await eventually(() => {
      const numbers = all.flatMap(({ tenures }) => tenures.at(-1)!.shares.map(({ partition }) => partition));
      expect(numbers.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5]);
    });
    expect([leads, third, fourth].flatMap(({ tenures, errors }) => [tenures.length, ...errors])).toEqual([1, 1, 1]);
    await Promise.all(all.map((of) => of.stop()));
  });

  it('S70 lets one of two writers live that take an id at the same instant, and fences the other before it is seen', async () => {
    const topic = await newTopic(log, 2);
    const transactionalId = uniqueName('writer');
    const writers = [openLog(), openLog()].map((own) => own.writer({ transactionalId }));
    const committed: string[] = [];
    for (let round = 0; round < 25; round++) {
      await Promise.all(writers.map((writer) => writer.fence()));
      const values = writers.map((_, n) => `round ${round} by ${n}`);
      const ends = await Promise.all(
        writers.map((writer, n): Promise<Outcome> => {
          const value = Buffer.from(values[n]!);
          return writer.transact([0, 1].map((partition) => ({ topic, partition, key: null, value })));
        }),
      );
      expect(ends.map(({ outcome }) => outcome).sort()).toEqual(['aborted', 'committed']);
      expect(ends.find(({ outcome }) => outcome === 'aborted')).toMatchObject({ fenced: 'writer' });
      committed.push(values[ends.findIndex(({ outcome }) => outcome === 'committed')]!);
    }
    expect(texts(await committedRecords(log, topic))).toEqual([...committed, ...committed]);
  });

  it('S74 refuses a commit of offsets that arrives after the takeover, and keeps those of the new owner', async () => {
    const topic = await newTopic(log, 1);
    const groupId = uniqueName('group');
    const proxy = await openProxy();
    const slow = openLog(proxy);
    const zombie = new Holder(slow, { groupId, topics: [topic] });
    const { membership } = await zombie.holding(1);
    const writer = slow.writer({ transactionalId: uniqueName('zombie') });
    await writer.fence();
    proxy.decide = ({ apiName }) => {
      if (apiName === 'Heartbeat') return { at: 'request', act: 'drop' };
      return apiName === 'TxnOffsetCommit' ? { at: 'request', act: 'keep' } : undefined;
    };
    const late = writer.transact([{ topic, partition: 0, key: null, value: Buffer.from('late') }], {
      membership,
      offsets: [{ topic, partition: 0, next: 99 }],
    });
    await proxy.strikes(1);
    const owner = new Holder(log, { groupId, topics: [topic] });
    const taken = await owner.holding(1);
    const successor = log.writer({ transactionalId: uniqueName('owner') });
    await successor.fence();
    const offsets = [{ topic, partition: 0, next: 7 }];
    expect(await successor.transact([], { membership: taken.membership, offsets })).toMatchObject({
      outcome: 'committed',
    });
    proxy.decide = () => undefined;
    await proxy.release();
    expect(await late).toMatchObject({ outcome: 'aborted', fenced: 'member' });
    expect(await log.admin.committedOffsets(groupId, [{ topic, partition: 0 }])).toEqual(offsets);
    expect(texts(await committedRecords(log, topic))).toEqual([]);
    // It joins again, and may be late once more: its session is a second.
    await eventually(() =>
      expect(new Set(zombie.errors.map((error) => errorCode(error)))).toEqual(new Set(['LOG_MEMBER_LOST'])),
    );
    await Promise.all([zombie.stop(), owner.stop()]);
  });

  it('S66 names the stall of a member also when a heartbeat was on its way', async () => {
    const topic = await newTopic(log, 1);
    const proxy = await openProxy();
    const member = new Holder(openLog(proxy), { groupId: uniqueName('group'), topics: [topic] });
    await member.holding(1);
    proxy.decide = ({ apiName }) => (apiName === 'Heartbeat' ? { at: 'response', act: 'hold' } : undefined);
    await proxy.strikes(1);
    block(1_500);
    await eventually(() => expect(member.errors).not.toEqual([]));
    proxy.decide = () => undefined;
    await proxy.release();
    expect(stallNamed(member.errors[0])).toBeGreaterThan(1_400);
    await member.stop();
  });

  it('S66 names the stall of a member whose last heartbeat was answered after it', async () => {
    const topic = await newTopic(log, 1);
    const proxy = await openProxy();
    const member = new Holder(openLog(proxy), { groupId: uniqueName('group'), topics: [topic] });
    await member.holding(1);
    let beats = 0;
    proxy.decide = ({ apiName }) => {
      if (apiName !== 'Heartbeat') return undefined;
      return beats++ === 0
        ? { at: 'response', act: 'delay', ms: 0, onStrike: () => block(800) }
        : { at: 'response', act: 'hold' };
    };
    await eventually(() => expect(member.errors).not.toEqual([]));
    proxy.decide = () => undefined;
    await proxy.release();
    expect(stallNamed(member.errors[0])).toBeGreaterThan(700);
    await member.stop();
  });

  it('S75 keeps partition n of all inputs on one member while three members come and go', async () => {
    const topics = await Promise.all([newTopic(log, 7), newTopic(log, 7), newTopic(log, 7)]);
    const groupId = uniqueName('group');
    const all: Holder[] = [];
    const live: Holder[] = [];
    const join = () => {
      const joined = new Holder(log, { groupId, topics });
      all.push(joined);
      live.push(joined);
    };
    const settled = () =>
      eventually(() => {
        const current = live.map((holder) => holder.current);
        const generations = new Set(current.map((given) => given?.membership.generation));
        expect([generations.size, generations.has(undefined)]).toEqual([1, false]);
        const given = current.flatMap((of) => of!.partitions.map(({ topic, partition }) => `${topic}/${partition}`));
        const every = topics.flatMap((topic) => Array.from({ length: 7 }, (_, n) => `${topic}/${n}`));
        expect(given.sort()).toEqual(every.sort());
      });
    for (const act of ['join', 'join', 'join', 'leave', 'join', 'leave', 'leave', 'join', 'join'] as const) {
      if (act === 'join') join();
      else await live.shift()!.stop();
      await settled();
    }
    for (const { partitions } of all.flatMap(({ assignments }) => assignments)) {
      const [first, ...others] = topics.map((topic) =>
        partitions.filter((of) => of.topic === topic).map(({ partition }) => partition),
      );
      for (const numbers of others) expect(numbers).toEqual(first);
    }
    expect(all.flatMap(({ errors }) => errors)).toEqual([]);
    await Promise.all(live.map((holder) => holder.stop()));
  });

  it('S72 settles, each partition with one owner, beside a member whose version assigns in another way', async () => {
    const topic = await newTopic(log, 4);
    const groupId = uniqueName('group');
    const other = new OtherVersion(groupId, topic);
    closing.push(() => other.close());
    // The other version leads, ours follows: it gives ours one partition, whatever it had, once that is free.
    const alone = await other.join();
    expect(alone.partitions).toEqual([0, 1, 2, 3]);
    const ours = new Holder(log, { groupId, topics: [topic] });
    await eventually(async () => expect(await other.rebalances()).toBe(true));
    expect((await other.join()).partitions).toEqual([1, 2, 3]);
    await ours.holding(0);
    expect((await other.join()).partitions).toEqual([1, 2, 3]);
    expect((await ours.holding(1)).partitions).toEqual([{ topic, partition: 0 }]);
    // It restarts: ours leads, with subscriptions of both versions before it.
    await other.leave();
    await ours.holding(4);
    expect((await other.join()).partitions).toEqual([]);
    await eventually(async () => expect(await other.rebalances()).toBe(true));
    const following = await other.join();
    const given = await ours.holding(2);
    const numbers = given.partitions.map(({ partition }) => partition);
    expect([...numbers, ...following.partitions].sort((a, b) => a - b)).toEqual([0, 1, 2, 3]);
    await eventually(() => expect(given.membership.generation).toBe(following.generation));
    expect(await other.rebalances()).toBe(false);
    expect(ours.errors).toEqual([]);
    await ours.stop();
  });
});

/** A member as another version might be: a later subscription with user data of its own, and as the leader a plan that is not sticky. */
class OtherVersion {
  readonly #wire: Wire;
  readonly #groupId: string;
  readonly #topic: string;
  #memberId = '';
  #generation = -1;
  #owned: readonly number[] = [];

  constructor(groupId: string, topic: string) {
    const options = { brokers: testBrokers(), clientId: 'other-version', requestTimeoutMs: 4_000 };
    this.#wire = new Wire(kafkajsClient(options).connections, options);
    this.#groupId = groupId;
    this.#topic = topic;
  }

  async join(): Promise<{ generation: number; partitions: readonly number[] }> {
    const lane = this.#wire.lane();
    const ask = <T extends { error: number }>(call: Call<T>) =>
      this.#wire.coordinated(GROUP, this.#groupId, call, lane, { deadlineMs: 10_000 });
    const protocol = 'headwater-cooperative';
    const options = { groupId: this.#groupId, sessionTimeoutMs: 10_000, rebalanceTimeoutMs: 10_000, protocol };
    const request = () => joinGroup({ ...options, memberId: this.#memberId, metadata: this.#subscription() }, 4_000);
    let joined = await ask(request());
    if (joined.error === 79) {
      this.#memberId = joined.memberId;
      joined = await ask(request());
    }
    expect(joined.error).toBe(0);
    this.#memberId = joined.memberId;
    this.#generation = joined.generation;
    const membership = { groupId: this.#groupId, memberId: joined.memberId, generation: joined.generation };
    const plan = joined.members.map(({ memberId }, _, members) => {
      const numbers = memberId !== this.#memberId ? [0] : members.length === 1 ? [0, 1, 2, 3] : [1, 2, 3];
      const others = members.filter((other) => other.memberId !== memberId);
      const claimed = new Set(others.flatMap(({ metadata }) => decodeOwned(metadata)));
      return {
        memberId,
        assignment: encodeAssignment([this.#topic], {
          given: numbers.filter((n) => !claimed.has(n)),
          asked: [],
          coming: [],
        }),
      };
    });
    const synced = await ask(syncGroup(membership, protocol, plan, 10_000));
    expect(synced.error).toBe(0);
    await this.#wire.release(lane);
    const partitions = decodeAssignment(synced.assignment)!.given;
    this.#owned = partitions;
    return { generation: joined.generation, partitions };
  }

  async rebalances(): Promise<boolean> {
    const membership = { groupId: this.#groupId, memberId: this.#memberId, generation: this.#generation };
    const coordinator = await this.#wire.coordinator(GROUP, this.#groupId);
    return (await this.#wire.send(coordinator, heartbeat(membership, 4_000))).error === 27;
  }

  async leave(): Promise<void> {
    const coordinator = await this.#wire.coordinator(GROUP, this.#groupId);
    expect((await this.#wire.send(coordinator, leaveGroup(this.#groupId, this.#memberId))).error).toBe(0);
    this.#memberId = '';
    this.#owned = [];
  }

  close(): Promise<void> {
    return this.#wire.close();
  }

  #subscription(): Buffer {
    const bytes = new ByteWriter().int16(3);
    bytes.array([this.#topic], (topic) => bytes.string(topic)).bytes(Buffer.from('version 2'));
    bytes.array(this.#owned.length > 0 ? [this.#topic] : [], (topic) => {
      bytes.string(topic).array(this.#owned, (partition) => bytes.int32(partition));
    });
    return Buffer.from(bytes.int32(7).string('rack').done());
  }
}
