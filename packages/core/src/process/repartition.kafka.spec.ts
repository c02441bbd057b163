import { afterEach, describe, expect, it } from '@jest/globals';
import { eventually, uniqueName } from '@headwater/testing';
import { systemClock, type Clock } from '../clock/clock.js';
import { partitionOf } from '../log/partitioner.js';
import { committedRecords, produce, textRecord, textsByKey } from '../log/log.testing.js';
import { dedupe } from './dedupe.js';
import type { ProcessRunner } from './process-runner.js';
import { repartition } from './repartition.js';
import { LATER, Sums, up, userState } from './sums.testing.js';

const ORDERS = 300;
const CUSTOMERS = 7;

let sums: Sums;

afterEach(() => sums.close());

describe('repartition', () => {
  it('S89 brings orders under their customer once, in a topic as wanted, over restarts of both sides', async () => {
    sums = await Sums.create(3);
    const { log } = sums;
    const orders = uniqueName('orders');
    await log.admin.ensureTopics([{ topic: orders, partitions: 2, cleanupPolicy: 'delete' }]);
    const byCustomer = repartition({
      name: uniqueName('by-customer'),
      from: [orders],
      by: ({ value }) => Buffer.from(value!.toString().split(' ')[0]!),
      partitions: 3,
      fromPartitions: 2,
    });
    await log.admin.ensureTopics(byCustomer.topics);
    expect(await log.admin.diffTopics(byCustomer.topics)).toEqual([]);
    const [internal] = byCustomer.topics;
    expect(internal).toMatchObject({ topic: byCustomer.topic, partitions: 3, config: { 'retention.ms': '-1' } });
    // The sum per customer: its input is the internal topic.
    const perCustomer = sums.definition({
      inputs: [byCustomer.topic],
      onRecord: ({ key, value }, context) => {
        const customer = key!.toString();
        const sum = Number(context.state.get(customer)?.toString() ?? '0') + Number(value!.toString().split(' ')[1]);
        context.state.put(customer, Buffer.from(String(sum)));
        context.send(textRecord(sums.output, customer, String(sum)));
      },
    });
    const expected: Record<string, string> = {};
    let made = 0;
    const order = async () => {
      const records = Array.from({ length: ORDERS }, () => {
        const customer = `customer-${made % CUSTOMERS}`;
        expected[customer] = String(Number(expected[customer] ?? '0') + made);
        return textRecord(orders, `order-${made}`, `${customer} ${made++}`);
      });
      await produce(log, records);
    };
    let running: ProcessRunner[] = [];
    for (let life = 0; life < 3; life++) {
      await order();
      running = [
        sums.run({ maxBatchRecords: 50 }, byCustomer.definition),
        sums.run({ maxBatchRecords: 50 }, perCustomer),
      ];
      if (life === 2) break;
      await eventually(() => expect(running.map((runner) => Number(runner.health().facts['handled']) > 0)).toEqual([true, true]), LATER); // prettier-ignore
      await Promise.all(running.map((runner) => runner.stop()));
    }
    const last = async () =>
      Object.fromEntries(Object.entries(await textsByKey(log, sums.output)).map(([key, texts]) => [key, texts.at(-1)]));
    await eventually(async () => expect(await last()).toEqual(expected), LATER);
    expect(Object.values(await textsByKey(log, sums.output)).flat()).toHaveLength(made);
    expect(await userState(running[1]!)).toEqual(expected);
    for (const { key, partition } of await committedRecords(log, byCustomer.topic))
      expect(partition).toBe(partitionOf(key!, 3));
  });
});

describe('dedupe', () => {
  it('passes the first record of an id on, over a restart too, and the next one after the window', async () => {
    sums = await Sums.create(2);
    let now = 1_000_000;
    const clock: Clock = { ...systemClock, now: () => now };
    const definition = dedupe({
      name: sums.name,
      from: [sums.input],
      to: sums.output,
      idOf: ({ value }) => value!.toString().split(' ')[0],
      windowMs: 60_000,
    });
    const send = (...values: string[]) =>
      produce(
        sums.log,
        values.map((value) => textRecord(sums.input, 'key', value)),
      );
    const seen = (...values: string[]) =>
      eventually(async () => expect((await textsByKey(sums.log, sums.output))['key']).toEqual(values), LATER);
    const first = sums.run({ clock }, definition);
    await send('a 1', 'b 1', 'a 2', 'a 3');
    await seen('a 1', 'b 1');
    await first.stop();
    const second = sums.run({ clock }, definition);
    await up(second);
    await send('a 4', 'c 1');
    await seen('a 1', 'b 1', 'c 1');
    now += 60_001;
    await send('a 5', 'a 6');
    await seen('a 1', 'b 1', 'c 1', 'a 5');
    expect(Object.keys(await userState(second))).toEqual(['a']);
  });
});
