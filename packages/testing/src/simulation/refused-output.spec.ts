import { expect, it } from '@jest/globals';
import { ProcessRunner, parkedTopicOf, silentLogger, stateTopicOf } from '@headwater/core';
import type { OutRecord, ProcessorDefinition } from '@headwater/core';
import { memoryLog } from '../memory-log/memory-log.js';
import { virtualClock } from '../virtual-clock/virtual-clock.js';

/** In virtual time, on topics of so many partitions, the output of which takes small records only. `produce` writes to the input. */
async function inMemory(
  name: string,
  partitions: number,
  play: (
    log: ReturnType<typeof memoryLog>,
    clock: ReturnType<typeof virtualClock>,
    produce: (records: readonly Omit<OutRecord, 'topic'>[]) => Promise<unknown>,
  ) => Promise<void>,
): Promise<void> {
  const clock = virtualClock(1);
  const log = memoryLog({ clock });
  await clock.run(async () => {
    const of = (topic: string) => ({ topic, partitions, cleanupPolicy: 'delete' }) as const;
    await log.admin.ensureTopics([
      of('input'),
      { ...of('output'), config: { 'max.message.bytes': '1000' } },
      of(parkedTopicOf(name)),
      { ...of(stateTopicOf(name)), cleanupPolicy: 'compact' },
    ]);
    const producer = log.writer({ transactionalId: 'producer' });
    await producer.fence();
    await play(log, clock, (records) => producer.transact(records.map((record) => ({ ...record, topic: 'input' }))));
    await log.close();
  });
}

it('S45 finds and parks the record whose output is refused while another partition is in the middle of slow ones', () =>
  inMemory('copy', 2, async (log, clock, produce) => {
    const definition: ProcessorDefinition = {
      name: 'copy',
      inputs: ['input'],
      async onRecord({ partition, key, value }, context) {
        if (partition === 0) await clock.wait(150);
        context.send({ topic: 'output', partition, key, value: partition === 0 ? value : Buffer.alloc(5_000) });
      },
    };
    const slow = Array.from({ length: 20 }, (_, n) => ({ partition: 0, key: Buffer.from(`${n}`) }));
    const records = [...slow, { partition: 1, key: Buffer.from('big') }];
    await produce(records.map((record) => ({ ...record, value: record.key })));
    const runner = new ProcessRunner(definition, { log, clock, logger: silentLogger, instanceId: 'one' });
    await clock.wait(60_000);
    expect((await log.admin.lag('headwater.copy', ['input'])).map(({ lag }) => lag)).toEqual([0, 0]);
    // The record, and its marker.
    expect((await log.admin.offsets(parkedTopicOf('copy'))).map(({ high }) => high)).toEqual([0, 2]);
    await runner.stop();
  }));

it('S45 finds the record whose output is refused while another partition has more to handle than it will ever be through with', () =>
  inMemory('busy', 2, async (log, clock, produce) => {
    const definition: ProcessorDefinition = {
      name: 'busy',
      inputs: ['input'],
      onRecord({ partition, key, value }, context) {
        const isBig = key!.toString() === 'big';
        context.send({ topic: 'output', partition, key, value: isBig ? Buffer.alloc(5_000) : value });
      },
    };
    await produce(
      Array.from({ length: 2_000 }, (_, n) => ({
        partition: n < 1_990 ? 0 : 1,
        key: Buffer.from(n === 1_995 ? 'big' : `${n}`),
        value: Buffer.from('x'),
      })),
    );
    // Each request takes its time, so that there is a backlog to look at.
    const { log: slow } = log.client({ clock, latencyMs: () => 5 });
    const options = { log: slow, clock, logger: silentLogger, instanceId: 'one', maxBatchRecords: 100 };
    const runner = new ProcessRunner(definition, options);
    const parked = async () => (await log.admin.offsets(parkedTopicOf('busy')))[1]!.high > 0;
    while (!(await parked())) await clock.wait(10);
    const [busy, guilty] = await log.admin.lag('headwater.busy', ['input']);
    expect([busy!.lag > 1_000, guilty!.lag < 10]).toEqual([true, true]);
    await runner.stop();
    await slow.close();
  }));

it.each([200, 300, 400])(
  'S45 finds the record whose output is refused while others of %s ms are in work when what needs no handler is committed',
  (slowMs) =>
    inMemory('moving', 4, async (log, clock, produce) => {
      const definition: ProcessorDefinition = {
        name: 'moving',
        inputs: ['input'],
        async onRecord({ partition, key, value }, context) {
          if (partition === 1) await clock.wait(slowMs);
          const isBig = key!.toString() === 'big';
          context.send({ topic: 'output', partition, key, value: isBig ? Buffer.alloc(5_000) : value });
        },
      };
      const to = (partition: number, keys: readonly string[]) =>
        keys.map((key) => ({ partition, key: Buffer.from(key), value: Buffer.from('x') }));
      const numbers = Array.from({ length: 40 }, (_, n) => `${n}`);
      await produce([...to(1, numbers), ...to(3, ['big', ...numbers])]);
      // The position of partition 2 moves all the time, over offsets without records: each work begins with a transaction for that.
      const aborting = log.writer({ transactionalId: 'aborting' });
      await aborting.fence();
      let isOver = false;
      const moving = (async () => {
        while (!isOver) {
          const transaction = aborting.begin();
          await transaction.append([{ topic: 'input', partition: 2, key: null, value: Buffer.from('x') }]);
          await transaction.abort();
          await clock.wait(100);
        }
      })();
      // So that the slow record ends before that transaction does.
      const { log: far } = log.client({ clock, latencyMs: () => 100 });
      const runner = new ProcessRunner(definition, { log: far, clock, logger: silentLogger, instanceId: 'one' });
      await clock.wait(40_000);
      expect((await log.admin.offsets(parkedTopicOf('moving'))).map(({ high }) => high)).toEqual([0, 0, 0, 2]);
      isOver = true;
      await moving;
      await runner.stop();
      await far.close();
    }),
);
