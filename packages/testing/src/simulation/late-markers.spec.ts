import { expect, it } from '@jest/globals';
import { ProcessRunner, parkedTopicOf, silentLogger, stateTopicOf, type ProcessorDefinition } from '@headwater/core';
import { memoryLog } from '../memory-log/memory-log.js';
import { virtualClock } from '../virtual-clock/virtual-clock.js';

it('S61 fires a timer once when the marker on the state topic lands after another instance has taken over', async () => {
  const clock = virtualClock(1);
  const fired: string[] = [];
  const dueAt = clock.now() + 2_000;
  // The transaction of the timer alone: the ones before it have moved the input.
  let lateMs = 0;
  const log = memoryLog({ clock, markerDelayMs: ({ topic }) => (topic === stateTopicOf('alarm') ? lateMs : 0) });
  const alarm = (name: string): ProcessorDefinition => ({
    name: 'alarm',
    inputs: ['input'],
    onRecord: (_, context) => context.timers.set('t', dueAt),
    onTimer: (_, context) => {
      fired.push(name);
      context.send({ topic: 'output', partition: 0, key: null, value: Buffer.from(name) });
      lateMs = 3_000;
    },
  });
  const run = (name: string) =>
    new ProcessRunner(alarm(name), { log: log.client().log, clock, logger: silentLogger, instanceId: name });
  await clock.run(async () => {
    const topics = ['input', 'output', parkedTopicOf('alarm')];
    await log.admin.ensureTopics([
      ...topics.map((topic) => ({ topic, partitions: 1, cleanupPolicy: 'delete' }) as const),
      { topic: stateTopicOf('alarm'), partitions: 1, cleanupPolicy: 'compact' },
    ]);
    const first = run('first');
    const producer = log.writer({ transactionalId: 'producer' });
    await producer.fence();
    await producer.transact([{ topic: 'input', partition: 0, key: Buffer.from('k'), value: null }]);
    await clock.wait(2_500);
    await first.stop();
    const second = run('second');
    await clock.wait(10_000);
    expect(second.health().status).toBe('up');
    await second.stop();
    expect(fired).toEqual(['first']);
    await log.close();
  });
});
