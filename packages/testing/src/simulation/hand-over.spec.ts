import { describe, expect, it } from '@jest/globals';
import {
  ProcessRunner,
  parkedTopicOf,
  silentLogger,
  stateTopicOf,
  type Log,
  type ProcessorDefinition,
} from '@headwater/core';
import type { LogCall } from '../memory-log/connection.js';
import { memoryLog } from '../memory-log/memory-log.js';
import { virtualClock } from '../virtual-clock/virtual-clock.js';

const NAME = 'copy';
const definition: ProcessorDefinition = {
  name: NAME,
  inputs: ['input'],
  onRecord({ partition, key, value }, context) {
    context.state.put(key!.toString(), value!);
    context.send({ topic: 'output', partition, key, value });
  },
};

/** Runs it in virtual time, on topics of `partitions` partitions. */
async function inMemory(
  partitions: number,
  play: (log: ReturnType<typeof memoryLog>, clock: ReturnType<typeof virtualClock>) => Promise<void>,
): Promise<void> {
  const clock = virtualClock(1);
  const log = memoryLog({ clock });
  await clock.run(async () => {
    await log.admin.ensureTopics([
      ...['input', 'output', parkedTopicOf(NAME)].map(
        (topic) => ({ topic, partitions, cleanupPolicy: 'delete' }) as const,
      ),
      { topic: stateTopicOf(NAME), partitions, cleanupPolicy: 'compact' },
    ]);
    await play(log, clock);
    await log.close();
  });
}

const put = (log: Log, text: string, partitions: number) =>
  log.producer().send(
    Array.from({ length: partitions }, (_, partition) => ({
      topic: 'input',
      partition,
      key: Buffer.from('k'),
      value: Buffer.from(text),
    })),
  );

/** All outputs, as partition:text. */
async function outputs(log: Log, partitions: number): Promise<string[]> {
  const reader = log.reader();
  for (let partition = 0; partition < partitions; partition++) reader.seek('output', partition, 0);
  const texts: string[] = [];
  for (let poll = 0; poll < 5; poll++)
    for (const { records } of await reader.poll({ maxWaitMs: 10 }))
      texts.push(...records.map(({ partition, value }) => `${partition}:${value!.toString()}`));
  await reader.close();
  return texts.sort();
}

describe('hand-over in virtual time', () => {
  it('S69 S73 commits nothing that lies on a refused transaction, whenever a member stops in the middle of a rebalance', async () => {
    let refused = 0;
    // The answers of the join and of the offsets, the next record and the end, in every order.
    for (const second of [40, 60, 80])
      for (let stop = 300; stop <= 460; stop += 10)
        await inMemory(2, async (log, clock) => {
          let latency = 0;
          let poll = false;
          const slow = log.client({
            requestTimeoutMs: 5_000,
            latencyMs: () => (latency > 0 && poll ? 20 : latency),
            fault: (call: LogCall) => {
              poll = call.request === 'poll';
              return undefined;
            },
          });
          const counted: Log = {
            ...slow.log,
            writer: (options) => {
              const writer = slow.log.writer(options);
              return {
                transactionalId: writer.transactionalId,
                fence: () => writer.fence(),
                begin: () => writer.begin(),
                close: () => writer.close(),
                transact: async (records, offsets) => {
                  const end = await writer.transact(records, offsets);
                  if (end.outcome === 'aborted' && end.fenced === 'member') refused++;
                  return end;
                },
              };
            },
          };
          const options = { clock, logger: silentLogger };
          const stops = new ProcessRunner(definition, { ...options, log: counted, clock: slow.clock, instanceId: 'M' });
          await clock.wait(100);
          await put(log, 'r0', 2);
          await clock.wait(3_000);
          latency = 200;
          await clock.wait(1_500);
          const stays = new ProcessRunner(definition, { ...options, log: log.client().log, instanceId: 'N' });
          await clock.wait(700);
          const writing = [put(log, 'r1', 2), clock.wait(second).then(() => put(log, 'r2', 2))];
          await clock.wait(stop);
          await stops.stop();
          await Promise.all(writing);
          await clock.wait(5_000);
          expect([second, stop, await outputs(log, 2)]).toEqual([
            second,
            stop,
            ['0:r0', '0:r1', '0:r2', '1:r0', '1:r1', '1:r2'],
          ]);
          await stays.stop();
        });
    expect(refused).toBeGreaterThan(0);
  });

  it('S68 gives back at once what it was given and has not begun, and keeps what runs', () =>
    inMemory(4, async (log, clock) => {
      let gate: Promise<void> | undefined;
      const { log: own } = log.client();
      const { admin } = own;
      const gated: Log = {
        ...own,
        admin: new Proxy(admin, {
          get: (target, name: keyof typeof admin) =>
            name !== 'committedOffsets'
              ? target[name].bind(target)
              : async (...asked: Parameters<typeof admin.committedOffsets>) => {
                  await gate;
                  return target.committedOffsets(...asked);
                },
        }),
      };
      const warnings: string[] = [];
      const logger = { ...silentLogger, warn: (line: string) => void warnings.push(line) };
      const tasks = (of: ProcessRunner) => [...of.tasks.keys()].sort((a, b) => a - b);
      const stays = new ProcessRunner(definition, { log: gated, clock, logger, instanceId: 'stays' });
      await clock.wait(1_000);
      const goes = new ProcessRunner(definition, { log: log.client().log, clock, logger, instanceId: 'goes' });
      await clock.wait(1_000);
      expect([tasks(stays), tasks(goes)]).toEqual([
        [0, 1],
        [2, 3],
      ]);
      let open: () => void = () => undefined;
      gate = new Promise((resolve) => (open = resolve));
      await goes.stop();
      await clock.wait(1_000);
      expect(tasks(stays)).toEqual([0, 1]);
      const comes = new ProcessRunner(definition, { log: log.client().log, clock, logger, instanceId: 'comes' });
      await clock.wait(1_000);
      expect([tasks(stays), tasks(comes), warnings]).toEqual([[0, 1], [2, 3], []]);
      open();
      await Promise.all([stays.stop(), comes.stop()]);
    }));

  it('is starting while partitions are coming, and up with none when none are', () =>
    inMemory(2, async (log, clock) => {
      const runner = (instanceId: string, own: Log = log.client().log) =>
        new ProcessRunner(definition, { log: own, clock, logger: silentLogger, instanceId });
      const slow = log.client({ latencyMs: () => 100 });
      const first = runner('first', slow.log);
      await clock.wait(5_000);
      const second = runner('second');
      const seen = new Set<string>();
      while (second.tasks.size === 0) {
        seen.add(second.health().status);
        await clock.wait(1);
      }
      expect([...seen]).toEqual(['starting']);
      const third = runner('third');
      await clock.wait(5_000);
      expect([first, second, third].map((of) => [of.health().status, of.tasks.size])).toEqual([
        ['up', 1],
        ['up', 1],
        ['up', 0],
      ]);
      await Promise.all([first.stop(), second.stop(), third.stop()]);
    }));
});
