import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { produce, textRecord, textsByKey } from '../log/log.testing.js';
import { LATER, PARTITIONS, SharedProcessor, evenly, type Member } from './shared-processor.testing.js';

let shared: SharedProcessor;

beforeEach(async () => {
  shared = await SharedProcessor.create();
});
afterEach(async () => {
  jest.restoreAllMocks();
  await shared.close();
});

/** Resolved by hand. */
function gate(): { readonly opened: Promise<void>; open: () => void } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open: () => open() };
}

describe('members of one processor', () => {
  it('S64 go on with what stays while a slow record holds up what moves', async () => {
    const slow = gate();
    let waits = false;
    const first = shared.member({ before: ({ partition }) => (waits && partition === 3 ? slow.opened : undefined) });
    await shared.more();
    await shared.exactly();
    waits = true;
    const known = first.handled.length;
    await shared.more();
    await eventually(() => expect(first.handled.slice(known).join()).toContain('3/'), LATER);
    const second = shared.member();
    // The other one that moves does not wait for it either.
    await eventually(() => expect([first.partitions, second.partitions]).toEqual([[0, 1, 3], [2]]), LATER);
    await shared.more();
    await eventually(async () => {
      const [committed, ends] = [await shared.committed(), await shared.ends()];
      for (const { partition, next } of committed)
        expect([partition, next >= ends[partition]!]).toEqual([partition, partition !== 3]);
    }, LATER);
    waits = false;
    slow.open();
    await evenly(first, second);
    await shared.exactly();
    const handled = [...first.handled, ...second.handled];
    expect(new Set(handled).size).toBe(handled.length);
    expect([...first.warnings, ...second.warnings]).toEqual([]);
  });

  it('S71 go on with what they have while what comes waits for a transaction of its former owner', async () => {
    const [watched, proxy] = [await shared.proxy(), await shared.proxy()];
    const seen: string[] = [];
    watched.decide = ({ apiName }) => void seen.push(apiName);
    const stays = shared.member({ proxy: watched });
    await stays.up();
    const goes = shared.member({
      proxy,
      group: { sessionTimeoutMs: 2_000 },
      writer: { transactionTimeoutMs: 60_000 },
    });
    await evenly(stays, goes);
    await shared.more();
    await shared.exactly();
    const own = stays.partitions;
    const silenced = new Set(['Heartbeat', 'JoinGroup', 'LeaveGroup', 'InitProducerId']);
    proxy.decide = ({ apiName }) => {
      if (apiName === 'EndTxn') return { at: 'request', act: 'keep' };
      return silenced.has(apiName) ? { at: 'request', act: 'drop' } : undefined;
    };
    await shared.more();
    await eventually(() => expect(proxy.log.map(({ request }) => request.apiName)).toContain('EndTxn'), LATER);
    // The one that goes has been silent for its session; the other has got its partitions, and asks where they go on.
    seen.length = 0;
    await eventually(() => expect(seen.slice(seen.indexOf('SyncGroup'))).toContain('OffsetFetch'), LATER);
    const before = stays.handled.length;
    await shared.more();
    await eventually(() => {
      const places = stays.handled.slice(before).map((place) => Number(place.split('/')[0]));
      expect([...new Set(places)].sort((a, b) => a - b)).toEqual(own);
    }, LATER);
    expect(stays.partitions).toEqual(own);
    proxy.decide = () => undefined;
    await proxy.release();
    await evenly(stays, goes);
    await shared.more();
    await shared.exactly();
  });

  it('S67 see nothing of a handler that outlasts the rebalance time-out; the new owner repeats its work once', async () => {
    const slow = gate();
    let waits = false;
    const first = shared.member({
      group: { rebalanceTimeoutMs: 1_000 },
      before: () => (waits ? slow.opened : undefined),
    });
    await shared.more();
    await shared.exactly();
    waits = true;
    const known = first.handled.length;
    await shared.more();
    await eventually(() => expect(first.handled.length).toBeGreaterThan(known), LATER);
    const second = shared.member({ group: { rebalanceTimeoutMs: 1_000 } });
    await shared.exactly();
    expect(new Set(second.handled).size).toBe(second.handled.length);
    const stuck = first.handled.slice(known);
    expect(second.handled).toEqual(expect.arrayContaining(stuck));
    waits = false;
    slow.open();
    await evenly(first, second);
    await shared.more();
    await shared.exactly();
  });

  it('S68 stop a restore for a rebalance; the next owner restores whole and has no output before', async () => {
    const before = shared.member();
    await shared.more(3);
    await shared.exactly();
    await before.runner.stop();
    const proxy = await shared.proxy();
    proxy.decide = ({ apiName }) => (apiName === 'Fetch' ? { at: 'response', act: 'hold' } : undefined);
    const restoring = shared.member({ proxy });
    await proxy.strikes(1);
    await shared.more(2);
    // Its fetches do not come back, and still it hands over what it has not restored.
    const next = shared.member();
    await next.up();
    await eventually(() => expect(next.partitions).toHaveLength(2), LATER);
    expect(restoring.runner.health().status).toBe('starting');
    expect(restoring.handled).toEqual([]);
    for (const partition of next.partitions) {
      const entries = async (of: Member) =>
        (await of.runner.tasks.get(partition)!.state.dump()).map(([entry]) => entry);
      const wanted = await entries(before);
      await eventually(async () => expect(await entries(next)).toEqual(expect.arrayContaining(wanted)), LATER);
    }
    proxy.decide = () => undefined;
    await proxy.release();
    await restoring.up();
    await shared.exactly();
    expect([...restoring.warnings, ...next.warnings]).toEqual([]);
  });

  it('S69 give nothing away before the outcome of a commit under way is known', async () => {
    const proxy = await shared.proxy();
    const first = shared.member({ proxy });
    await shared.more();
    await shared.exactly();
    let asked = 0;
    let beats = 0;
    proxy.decide = ({ apiName }) => {
      if (apiName === 'EndTxn') return { at: 'request', act: 'hold' };
      if (apiName === 'Heartbeat' && asked > 0) beats++;
      return undefined;
    };
    await shared.more();
    await proxy.strikes(1);
    const seen: string[] = [];
    const watched = await shared.proxy();
    watched.decide = ({ apiName }) => {
      seen.push(apiName);
      if (apiName === 'JoinGroup') asked++;
      return undefined;
    };
    const second = shared.member({ proxy: watched });
    // The second is a member with nothing; the first has been told what it is asked for.
    await eventually(() => expect(seen).toContain('SyncGroup'), LATER);
    beats = 0;
    await eventually(() => expect(beats).toBeGreaterThanOrEqual(3), LATER);
    expect(seen).not.toContain('OffsetFetch');
    proxy.decide = () => undefined;
    await proxy.release();
    await evenly(first, second);
    expect(seen).toContain('OffsetFetch');
    await shared.exactly();
    // The commit counted: its records were handled once.
    const handled = [...first.handled, ...second.handled];
    expect(new Set(handled).size).toBe(handled.length);
    expect([...first.warnings, ...second.warnings]).toEqual([]);
  });

  it('S71 move the partitions of one that is cut off from the coordinator, and refuse its commits on its return', async () => {
    const proxy = await shared.proxy();
    const cut = shared.member({
      proxy,
      group: { sessionTimeoutMs: 2_000 },
      writer: { transactionTimeoutMs: 12_000 },
    });
    await shared.more();
    await shared.exactly();
    const ofGroup = new Set(['Heartbeat', 'JoinGroup', 'SyncGroup', 'LeaveGroup', 'TxnOffsetCommit']);
    proxy.decide = ({ apiName }) => (ofGroup.has(apiName) ? { at: 'request', act: 'keep' } : undefined);
    await shared.more();
    await eventually(() => expect(proxy.log.map(({ request }) => request.apiName)).toContain('TxnOffsetCommit'), LATER);
    const other = shared.member();
    await eventually(() => expect(other.partitions).toEqual(PARTITIONS), LATER);
    // Read by position: what the one cut off has open on the output still hides what follows it there.
    await eventually(async () => {
      const committed = await shared.committed();
      const ends = new Map(
        (await shared.log.admin.offsets(shared.input)).map(({ partition, high }) => [partition, high]),
      );
      for (const { partition, next } of committed) expect(next).toBeGreaterThanOrEqual(ends.get(partition)! - 1);
    }, LATER);
    const owned = await shared.committed();
    proxy.decide = () => undefined;
    await proxy.release();
    await eventually(() => expect(cut.warnings.join()).toContain('LOG_MEMBER_LOST'), LATER);
    await cut.up();
    expect(await shared.committed()).toEqual(owned);
    await evenly(cut, other);
    await shared.more();
    await shared.exactly();
  });

  it('S76 lose no session and fire no timer early while the wall clock jumps an hour ahead and back', async () => {
    const hour = 3_600_000;
    let shift = 0;
    const now = Date.now;
    // Everything of this process, the log's connections too.
    jest.spyOn(Date, 'now').mockImplementation(() => now() + shift);
    const proxies = [await shared.proxy(), await shared.proxy()];
    const beats = proxies.map(() => 0);
    for (const [n, proxy] of proxies.entries()) {
      proxy.decide = ({ apiName }) => {
        if (apiName === 'Heartbeat') beats[n]!++;
        return undefined;
      };
    }
    const members = proxies.map((proxy) => shared.member({ proxy }));
    await evenly(...members);
    const startedAt = Date.now();
    const due = new Map([
      ['soon', startedAt + 1_500],
      ['in-an-hour', startedAt + hour + 1_000],
      ['in-two-hours', startedAt + 2 * hour],
    ]);
    await produce(
      shared.log,
      [...due].map(([key, at]) => textRecord(shared.input, key, `alarm ${at}`)),
    );
    const fired = async () => {
      const texts = await textsByKey(shared.log, shared.output);
      return [...due.keys()].filter((key) => texts[key] !== undefined);
    };
    for (const [to, expected] of [
      [-hour, []],
      [0, ['soon']],
      [-hour, ['soon']],
      [hour, ['soon', 'in-an-hour']],
      [0, ['soon', 'in-an-hour']],
    ] as const) {
      shift = to;
      const before = [...beats];
      await shared.more(4);
      await eventually(async () => expect(await fired()).toEqual(expected), LATER);
      // Whoever measures a session by the wall clock finds it over at the first of these.
      await eventually(() => {
        for (const [n, count] of beats.entries()) expect(count).toBeGreaterThan(before[n]! + 3);
      }, LATER);
      expect(await fired()).toEqual(expected);
    }
    const texts = await textsByKey(shared.log, shared.output);
    for (const key of ['soon', 'in-an-hour']) {
      expect(texts[key]).toHaveLength(1);
      const [wanted, at] = texts[key]![0]!.split(' ').map(Number) as [number, number];
      expect(wanted).toBe(due.get(key));
      expect(at).toBeGreaterThanOrEqual(wanted);
    }
    await shared.exactly({ soon: texts['soon']!, 'in-an-hour': texts['in-an-hour']! });
    expect(members.flatMap(({ warnings }) => warnings)).toEqual([]);
  });
});
