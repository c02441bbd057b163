import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, settledOffsets, uniqueName } from '@headwater/testing';
import { systemClock } from '../clock/clock.js';
import { prometheusText } from '../lifecycle/metric.js';
import type { Log } from '../log/log.js';
import { committedRecords, produce, textRecord } from '../log/log.testing.js';
import type { ProcessContext } from './processor.js';
import { Scene, messageOf, sums } from './process.testing.js';

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(() => scene.close());

const keys = ['a', 'b', 'c', 'd'];
/** The log, with writers whose transactions may take a second. */
const hasty = (log: Log): Log => ({
  ...log,
  writer: (options) => log.writer({ ...options, transactionTimeoutMs: 1_000 }),
});
const handled = (facts: Readonly<Record<string, unknown>>) => facts['handled'];

describe('a handler', () => {
  it('S44 may outlast the transaction time-out: no transaction is open meanwhile, not of other partitions either, and the result is exactly f(input)', async () => {
    await scene.createTopics(2);
    let slow: Promise<void> | undefined;
    const open: string[] = [];
    const runner = scene.run(
      {
        onRecord: async (record, context) => {
          const value = record.value!.toString();
          scene.count(record.key!.toString(), value, context);
          if (record.key!.toString() !== 'a' || value !== '5') return;
          slow ??= systemClock.wait(2_500).then(async () => {
            for (const { partition, lastStable, high } of await scene.log.admin.offsets(scene.output))
              if (lastStable < high) open.push(`${partition}: ${lastStable} of ${high}`);
          });
          await slow;
        },
      },
      { log: hasty(scene.log) },
    );
    const values = ['1', '5', '1'];
    await produce(
      scene.log,
      values.flatMap((value) => keys.map((key) => scene.record(key, value))),
    );
    await scene.seen(Object.fromEntries(keys.map((key) => [key, ['1', '6', '7']])));
    expect(new Set((await committedRecords(scene.log, scene.output)).map(({ partition }) => partition)).size).toBe(2);
    expect(slow).toBeDefined();
    expect(open).toEqual([]);
    await settledOffsets(scene.log, scene.output);
    expect(runner.health().facts['restarts']).toBe(0);
  });

  it('S44 is called again for what was in a transaction that the broker timed out: readers go on meanwhile, the result is exactly f(input)', async () => {
    await scene.createTopics(1);
    const { log, proxy } = await scene.faultyLog(10_000);
    const runner = scene.run({}, { log: hasty(log) });
    await produce(scene.log, scene.ones(keys, 2));
    await scene.seen(sums(keys, 2));
    let written = false;
    let held = false;
    proxy.decide = ({ apiName, frame }) => {
      // Not that of a transaction which only moves the position.
      written ||= apiName === 'Produce' && frame.includes(scene.output);
      if (!written || held || apiName !== 'EndTxn') return undefined;
      held = true;
      return { at: 'request', act: 'hold' };
    };
    const before = (await settledOffsets(scene.log, scene.output))[0]!.high;
    await produce(scene.log, scene.ones(keys, 3));
    await eventually(async () => {
      const [end] = await scene.log.admin.offsets(scene.output);
      expect(end!.lastStable).toBeGreaterThan(before);
    });
    await scene.seen(sums(keys, 2));
    await proxy.release();
    await scene.seen(sums(keys, 5));
    expect(runner.health().facts['restarts']).toBe(1);
  });

  it('S63 may send a hundred times without waiting: none is lost or doubled by a lost acknowledgement, and late ones are refused', async () => {
    await scene.createTopics(2);
    const { log, proxy } = await scene.faultyLog();
    const late: Promise<string>[] = [];
    let lost = false;
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    scene.run(
      {
        onRecord: (record, context) => {
          const key = record.key!.toString();
          const send = async (n: number) => context.send(textRecord(scene.output, key, String(n)));
          for (let n = 0; n < 100; n++) void send(n);
          late.push(messageOf(gate.then(() => send(100))));
        },
      },
      { log },
    );
    proxy.decide = ({ apiName }) => {
      if (lost || apiName !== 'Produce') return undefined;
      lost = true;
      return { at: 'response', act: 'close' };
    };
    await produce(scene.log, [scene.record('a', 'go'), scene.record('b', 'go')]);
    const all = Array.from({ length: 100 }, (_, n) => String(n));
    await scene.seen({ a: all, b: all });
    expect(lost).toBe(true);
    release();
    const said = await Promise.all(late);
    expect(said.length).toBeGreaterThanOrEqual(2);
    for (const one of said) expect(one).toMatch(/^PROCESS_CONTEXT_OVER/);
    await produce(scene.log, [scene.record('c', 'go')]);
    await scene.seen({ a: all, b: all, c: all });
  });

  it('S82 that is idle leaves its group a lag of 0 beside a foreign open transaction', async () => {
    await scene.createTopics(1);
    const runner = scene.run();
    await produce(scene.log, scene.ones(keys, 5));
    await scene.seen(sums(keys, 5));
    const foreign = scene.log.writer({ transactionalId: uniqueName('foreign'), transactionTimeoutMs: 60_000 });
    await foreign.fence();
    // Nothing of it is handled; the group moves over it all the same.
    const dropped = foreign.begin();
    await dropped.append(scene.ones(keys, 10));
    expect(await dropped.abort()).toMatchObject({ outcome: 'aborted' });
    const open = foreign.begin();
    await open.append(scene.ones(keys, 10));
    const lag = async () => (await scene.log.admin.lag(`headwater.${scene.name}`, [scene.input])).map((one) => one.lag);
    await eventually(async () => expect(await lag()).toEqual([0]));
    await eventually(() => expect(runner.health().facts['lag']).toEqual({ 0: 0 }));
    const [end] = await scene.log.admin.offsets(scene.input);
    expect(end!.high - end!.lastStable).toBe(keys.length * 10);
    await open.commit();
    await scene.seen(sums(keys, 15));
    await eventually(async () => expect(await lag()).toEqual([0]));
  });
});

describe('a processor', () => {
  it('handles nothing while it is paused, keeps its partitions and its heartbeat, and goes on when resumed', async () => {
    await scene.createTopics(2);
    const runner = scene.run();
    await produce(scene.log, scene.ones(keys, 2));
    await scene.seen(sums(keys, 2));
    await runner.pause();
    const tasks = runner.tasks;
    const before = handled(runner.health().facts);
    await produce(scene.log, scene.ones(keys, 3));
    // The records have arrived: the lag counts them, nothing handles them.
    await eventually(() =>
      expect(Object.values(runner.health().facts['lag'] as Record<string, number>).every((lag) => lag > 0)).toBe(true),
    );
    await scene.seen(sums(keys, 2));
    expect(handled(runner.health().facts)).toBe(before);
    expect(runner.health()).toMatchObject({ status: 'up', facts: { paused: true } });
    runner.resume();
    await scene.seen(sums(keys, 5));
    expect(runner.tasks).toBe(tasks);
  });

  it('pauses behind the record that is being handled, with that committed', async () => {
    await scene.createTopics(1);
    let entered!: () => void;
    const inside = new Promise<void>((resolve) => (entered = resolve));
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const runner = scene.run({
      onRecord: async (record: { key: Buffer | null; value: Buffer | null }, context: ProcessContext) => {
        entered();
        await gate;
        scene.count(record.key!.toString(), record.value!.toString(), context);
      },
    });
    await produce(scene.log, scene.ones(['a'], 3));
    await inside;
    const paused = runner.pause();
    release();
    await paused;
    await scene.seen({ a: ['1'] });
    runner.resume();
    await scene.seen({ a: ['1', '2', '3'] });
  });

  it('shows on a metrics page what it handled, parked and has yet to do, by partition', async () => {
    await scene.createTopics(1);
    const runner = scene.run({
      onRecord: (record, context) => {
        if (record.value!.toString() === 'bad') throw new TypeError('bad');
        scene.count(record.key!.toString(), record.value!.toString(), context);
      },
    });
    await produce(scene.log, [...scene.ones(keys, 2), scene.record('z', 'bad'), scene.record('z', '1')]);
    await scene.seen(sums(keys, 2));
    const page = () => prometheusText(runner.metrics());
    const labels = `{processor="${scene.name}"}`;
    const ofTask = `{processor="${scene.name}",partition="0"}`;
    await eventually(() => {
      expect(page()).toContain(`headwater_processor_committed_total${labels} 10`);
      expect(page()).toContain(`headwater_processor_lag_offsets${ofTask} 0`);
    });
    expect(page()).toContain(`# TYPE headwater_processor_up gauge\nheadwater_processor_up${labels} 1\n`);
    expect(page()).toContain(`headwater_processor_parked_total${labels} 2`);
    expect(page()).toContain(`headwater_processor_parked_sequences${ofTask} 1`);
    expect(page()).toContain(`headwater_processor_restarts_total${labels} 0`);
  });
});
