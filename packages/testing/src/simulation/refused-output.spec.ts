import { expect, it } from '@jest/globals';
import { ProcessRunner, parkedTopicOf, silentLogger, stateTopicOf, type ProcessorDefinition } from '@headwater/core';
import { memoryLog } from '../memory-log/memory-log.js';
import { virtualClock } from '../virtual-clock/virtual-clock.js';

it('S45 finds and parks the record whose output is refused while another partition is in the middle of slow ones', async () => {
  const clock = virtualClock(1);
  const log = memoryLog({ clock });
  const definition: ProcessorDefinition = {
    name: 'copy',
    inputs: ['input'],
    async onRecord({ partition, key, value }, context) {
      if (partition === 0) await clock.wait(150);
      context.send({ topic: 'output', partition, key, value: partition === 0 ? value : Buffer.alloc(5_000) });
    },
  };
  await clock.run(async () => {
    const of = (topic: string) => ({ topic, partitions: 2, cleanupPolicy: 'delete' }) as const;
    await log.admin.ensureTopics([
      of('input'),
      { ...of('output'), config: { 'max.message.bytes': '1000' } },
      of(parkedTopicOf('copy')),
      of(stateTopicOf('copy')),
    ]);
    const producer = log.writer({ transactionalId: 'producer' });
    await producer.fence();
    const slow = Array.from({ length: 20 }, (_, n) => ({ partition: 0, key: Buffer.from(`${n}`) }));
    const records = [...slow, { partition: 1, key: Buffer.from('big') }];
    await producer.transact(records.map((record) => ({ ...record, topic: 'input', value: record.key })));
    const runner = new ProcessRunner(definition, { log, clock, logger: silentLogger, instanceId: 'one' });
    await clock.wait(60_000);
    expect((await log.admin.lag('headwater.copy', ['input'])).map(({ lag }) => lag)).toEqual([0, 0]);
    // The record, and its marker.
    expect((await log.admin.offsets(parkedTopicOf('copy'))).map(({ high }) => high)).toEqual([0, 2]);
    await runner.stop();
    await log.close();
  });
});
