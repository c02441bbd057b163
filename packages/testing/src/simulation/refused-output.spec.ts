import { expect, it } from '@jest/globals';
import { ProcessRunner, parkedTopicOf, silentLogger, stateTopicOf } from '@headwater/core';
import type { OutRecord, ProcessorDefinition } from '@headwater/core';
import { memoryLog } from '../memory-log/memory-log.js';
import { virtualClock } from '../virtual-clock/virtual-clock.js';

/** In virtual time, on topics of two partitions, the output of which takes small records only. `produce` writes to the input. */
async function inMemory(
  name: string,
  play: (
    log: ReturnType<typeof memoryLog>,
    clock: ReturnType<typeof virtualClock>,
    produce: (records: readonly Omit<OutRecord, 'topic'>[]) => Promise<unknown>,
  ) => Promise<void>,
): Promise<void> {
  const clock = virtualClock(1);
  const log = memoryLog({ clock });
  await clock.run(async () => {
    const of = (topic: string) => ({ topic, partitions: 2, cleanupPolicy: 'delete' }) as const;
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
  inMemory('copy', async (log, clock, produce) => {
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
  inMemory('busy', async (log, clock, produce) => {
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
