import { describe, expect, it } from '@jest/globals';
import { ProcessRunner, controlTopicOf, listParked, parkedTopicOf, readCommitted, stateTopicOf } from '@headwater/core';
import type {
  Logger,
  OutRecord,
  ProcessContext,
  ProcessOptions,
  ProcessorDefinition,
  TopicSpec,
} from '@headwater/core';
import { memoryLog } from '../memory-log/memory-log.js';
import { virtualClock } from '../virtual-clock/virtual-clock.js';

type Handle = ProcessorDefinition['onRecord'];

const of = (topic: string, cleanupPolicy: TopicSpec['cleanupPolicy'] = 'delete'): TopicSpec => ({
  topic,
  partitions: 2,
  cleanupPolicy,
});
const STATE = of(stateTopicOf('p'), 'compact');

/** A processor `p` from `input` to `output`, two partitions each, in virtual time. */
class Scene {
  readonly clock = virtualClock(1);
  readonly log = memoryLog({ clock: this.clock, maxPollRecords: () => 20 });
  readonly told: string[] = [];
  readonly #logger: Logger = {
    log: () => undefined,
    warn: (text) => void this.told.push(text),
    error: (text) => void this.told.push(text),
  };

  start(
    onRecord: Handle,
    more: Partial<ProcessorDefinition> = {},
    options: Partial<ProcessOptions> = {},
  ): ProcessRunner {
    const { log, clock } = this;
    const definition = { name: 'p', inputs: ['input'], onRecord, ...more };
    return new ProcessRunner(definition, { log, clock, instanceId: 'one', logger: this.#logger, ...options });
  }

  async write(...records: (readonly [key: string, partition: number, value?: string | Buffer])[]): Promise<void> {
    const writer = this.log.writer({ transactionalId: 'source' });
    await writer.fence();
    const made = records.map(([key, partition, value = key]): OutRecord => {
      return { topic: 'input', partition, key: Buffer.from(key), value: Buffer.from(value) };
    });
    expect(await writer.transact(made)).toMatchObject({ outcome: 'committed' });
    await writer.close();
  }

  async outputs(): Promise<string[]> {
    const keys: string[] = [];
    await readCommitted(this.log, 'output', ({ key }) => void keys.push(key!.toString()));
    return keys.sort();
  }

  async parked(): Promise<readonly (readonly [string | undefined, string])[]> {
    return (await listParked(this.log, 'p')).map(({ key, units }) => [key, units[0]!.code]);
  }

  async remakeState(): Promise<void> {
    await this.log.admin.deleteTopics([STATE.topic]);
    await this.log.admin.ensureTopics([STATE]);
  }
}

async function play(act: (scene: Scene) => Promise<void>, topics: readonly TopicSpec[] = [STATE]): Promise<void> {
  const scene = new Scene();
  await scene.clock.run(async () => {
    await scene.log.admin.ensureTopics([of('input'), of('output'), ...topics]);
    await act(scene);
    await scene.log.close();
  });
}

/** Copies every record, but for the key `bad`. */
const but =
  (bad: (context: ProcessContext) => void): Handle =>
  ({ key, value }, context) => {
    if (key!.toString() === 'bad') return bad(context);
    context.send({ topic: 'output', key, value });
  };

const RECORDS = [
  ['a', 0],
  ['bad', 0],
  ['b', 0],
  ['c', 1],
] as const;

const invalid = (value: unknown) => value as never;
const KEY = Buffer.from('key');
const VALUE = Buffer.from('value');

const MISTAKES: Readonly<Record<string, readonly [code: string, (context: ProcessContext) => void]>> = {
  'state that is a text': ['PROCESS_ARGUMENT_INVALID', ({ state }) => state.put('x', invalid('text'))],
  'a timer at no time': ['PROCESS_ARGUMENT_INVALID', ({ timers }) => timers.set('x', NaN)],
  'a record whose key is a text': [
    'PROCESS_ARGUMENT_INVALID',
    (context) => context.send({ topic: 'output', key: invalid('key'), value: VALUE }),
  ],
  'a record whose value is a number': [
    'PROCESS_ARGUMENT_INVALID',
    (context) => context.send({ topic: 'output', key: KEY, value: invalid(1) }),
  ],
  'a record for a partition that is none': [
    'PROCESS_ARGUMENT_INVALID',
    (context) => context.send({ topic: 'output', key: KEY, value: VALUE, partition: 0.5 }),
  ],
  'a record of no time': [
    'PROCESS_ARGUMENT_INVALID',
    (context) => context.send({ topic: 'output', key: KEY, value: VALUE, timestamp: NaN }),
  ],
  'a header that is a text': [
    'PROCESS_ARGUMENT_INVALID',
    (context) => context.send({ topic: 'output', key: KEY, value: VALUE, headers: [['name', invalid('text')]] }),
  ],
  'a record for a topic of no possible name': [
    'PROCESS_ARGUMENT_INVALID',
    (context) => context.send({ topic: 'no name', key: KEY, value: VALUE }),
  ],
  'a record for a partition that is not there': [
    'LOG_PARTITION_MISSING',
    (context) => context.send({ topic: 'output', key: KEY, value: VALUE, partition: 7 }),
  ],
  'a record for a partition of a topic that does not exist': [
    'LOG_TOPIC_MISSING',
    (context) => context.send({ topic: 'typo', key: KEY, value: VALUE, partition: 0 }),
  ],
  'a record for a topic that does not exist': [
    'LOG_TOPIC_MISSING',
    (context) => context.send({ topic: 'typo', key: KEY, value: VALUE }),
  ],
};

describe('a handler that is wrong about one record', () => {
  for (const [what, [code, bad]] of Object.entries(MISTAKES))
    it(`S60 has it parked, and the others flow on: ${what}`, () =>
      play(async (scene) => {
        const runner = scene.start(but(bad));
        await scene.write(...RECORDS);
        await scene.clock.wait(300_000);
        expect(await scene.outputs()).toEqual(['a', 'b', 'c']);
        expect(await scene.parked()).toEqual([['bad', code]]);
        expect(runner.health().status).toBe('up');
        await runner.stop();
      }));

  it('S60 has it parked at once when it sends to another topic than the declared ones', () =>
    play(async (scene) => {
      const runner = scene.start(
        but((context) => context.send({ topic: 'input', key: KEY, value: VALUE })),
        { outputs: ['output'] },
      );
      await scene.write(...RECORDS);
      await scene.clock.wait(5_000);
      expect(await scene.outputs()).toEqual(['a', 'b', 'c']);
      expect(await scene.parked()).toEqual([['bad', 'PROCESS_OUTPUT_UNKNOWN']]);
      expect(runner.health()).toMatchObject({ status: 'up', facts: { restarts: 0 } });
      await runner.stop();
    }));

  it('P5 changes no state by changing the Buffer that it was given', () =>
    play(async (scene) => {
      let failing = 0;
      const runner = scene.start((_, context) => {
        const count = context.state.get('count') ?? Buffer.alloc(4);
        count.writeUInt32LE(count.readUInt32LE(0) + 1, 0);
        if (failing-- > 0) throw new Error('not yet');
        context.state.put('count', count);
      });
      await scene.write(['a', 0]);
      await scene.clock.wait(5_000);
      failing = 2;
      await scene.write(['a', 0], ['a', 0]);
      await scene.clock.wait(5_000);
      expect([...runner.tasks.values()].map(({ state }) => state.get('s:count')?.readUInt32LE(0))).toEqual([
        3,
        undefined,
      ]);
      await runner.stop();
    }));

  it('S73 does not keep its processor from stopping, and its record is handled again by the next owner', () =>
    play(async (scene) => {
      const stuck = scene.start(
        ({ key, value }, context) => {
          if (key!.toString() === 'bad') return new Promise(() => undefined);
          context.send({ topic: 'output', key, value });
        },
        {},
        { drainTimeoutMs: 5_000 },
      );
      await scene.write(...RECORDS);
      await scene.clock.wait(5_000);
      const since = scene.clock.elapsed();
      await stuck.stop();
      expect(scene.clock.elapsed() - since).toBeGreaterThanOrEqual(5_000);
      expect(scene.clock.elapsed() - since).toBeLessThan(6_000);
      expect(scene.told.join()).toMatch(
        /PROCESS_DRAIN_TIMED_OUT: processor p, partition 0: a record was still in work/,
      );
      // Its partition was not done with anything; the other was.
      expect(await scene.outputs()).toEqual(['c']);
      const next = scene.start(
        but((context) => context.send({ topic: 'output', key: Buffer.from('bad'), value: VALUE })),
      );
      await scene.clock.wait(10_000);
      expect(await scene.outputs()).toEqual(['a', 'b', 'bad', 'c']);
      await next.stop();
    }));
});

describe('a handler that never ends', () => {
  const stuckAt =
    (stuck: string): Handle =>
    ({ key, value }, context) => {
      if (key!.toString() === stuck) return new Promise(() => undefined);
      context.send({ topic: 'output', key, value });
    };

  it('S59 keeps the others only for so long from beginning anew after a failure, and hides neither', () =>
    play(async (scene) => {
      const runner = scene.start(stuckAt('a'), { outputs: ['output'] }, { drainTimeoutMs: 5_000 });
      await scene.write(['a', 0], ['c', 1]);
      await scene.clock.wait(2_000);
      await scene.log.admin.deleteTopics(['output']);
      await scene.clock.wait(4_000);
      const lastError = expect.stringMatching(/needs output/);
      expect(runner.health()).toMatchObject({ status: 'starting', facts: { lastError } });
      await scene.log.admin.ensureTopics([of('output')]);
      await scene.clock.wait(30_000);
      expect(scene.told.join()).toMatch(/PROCESS_DRAIN_TIMED_OUT: processor p, partition 0/);
      await scene.write(['d', 1]);
      await scene.clock.wait(5_000);
      expect(await scene.outputs()).toEqual(['d']);
      const since = scene.clock.elapsed();
      await runner.stop();
      expect(scene.clock.elapsed() - since).toBeLessThan(6_000);
    }));

  it('does not hide that the state topic was made again', () =>
    play(async (scene) => {
      const runner = scene.start(stuckAt('a'), {}, { drainTimeoutMs: 5_000 });
      await scene.write(['a', 0], ['c', 1]);
      await scene.clock.wait(2_000);
      await scene.remakeState();
      await scene.clock.wait(20_000);
      expect(runner.health()).toMatchObject({
        status: 'down',
        facts: { lastError: expect.stringMatching(/STATE_REMADE/) },
      });
      await runner.stop();
    }));
});

describe('the topics of a processor', () => {
  const copy = but(() => undefined);

  it('are made when they are its own: control, and parked, without which nothing can be set aside', () =>
    play(async (scene) => {
      const runner = scene.start(copy);
      await scene.clock.wait(5_000);
      const counts = await scene.log.admin.partitionCounts([controlTopicOf('p'), parkedTopicOf('p')]);
      expect([...counts.values()]).toEqual([2, 2]);
      await runner.stop();
    }));

  it('are waited for when they are declared outputs, also when they go while it runs', () =>
    play(async (scene) => {
      await scene.log.admin.deleteTopics(['output']);
      const runner = scene.start(copy, { outputs: ['output'] });
      await scene.write(...RECORDS);
      await scene.clock.wait(60_000);
      expect(runner.health()).toMatchObject({
        status: 'starting',
        facts: { lastError: expect.stringMatching(/needs output/) },
      });
      await scene.log.admin.ensureTopics([of('output')]);
      await scene.clock.wait(60_000);
      expect(await scene.outputs()).toEqual(['a', 'b', 'c']);
      await scene.log.admin.deleteTopics(['output']);
      await scene.write(['d', 0]);
      await scene.clock.wait(60_000);
      await scene.log.admin.ensureTopics([of('output')]);
      await scene.clock.wait(60_000);
      expect(await scene.outputs()).toEqual(['d']);
      expect(await scene.parked()).toEqual([]);
      await runner.stop();
    }));

  it('are refused when the state is not compacted: the broker would remove it', () =>
    play(
      async (scene) => {
        const runner = scene.start(copy);
        await scene.clock.wait(5_000);
        expect(runner.health().status).toBe('down');
        expect(scene.told.join()).toMatch(
          /PROCESS_STATE_NOT_COMPACTED: .* has cleanup.policy=delete.*Set it to compact/,
        );
        await runner.stop();
      },
      [of(STATE.topic)],
    ));

  it('are refused when what is parked has no place in them', () =>
    play(
      async (scene) => {
        const runner = scene.start(copy);
        await scene.clock.wait(5_000);
        expect(runner.health().status).toBe('down');
        expect(scene.told.join()).toMatch(
          /PROCESS_PARTITIONS_CHANGED: .*parked has 1 partitions, the state of p has 2/,
        );
        await runner.stop();
      },
      [STATE, { ...of(parkedTopicOf('p')), partitions: 1 }],
    ));

  it('keep it from beginning with an empty state where its group has begun, though nothing of the input is left', () =>
    play(async (scene) => {
      const count: Handle = (_, { state }) => {
        const n = Number(state.get('n')?.toString() ?? '0') + 1;
        state.put('n', Buffer.from(String(n)));
      };
      const runner = scene.start(count);
      await scene.write(['a', 0], ['a', 0]);
      await scene.clock.wait(5_000);
      await runner.stop();
      await scene.remakeState();
      const [end] = await scene.log.admin.offsets('input');
      scene.log.deleteRecords('input', 0, end!.high);
      const again = scene.start(count);
      await scene.write(['a', 0]);
      await scene.clock.wait(60_000);
      expect(again.health()).toMatchObject({
        status: 'starting',
        facts: { handled: 0, lastError: expect.stringMatching(/PROCESS_STATE_BEHIND.*delete the group/) },
      });
      await again.stop();
    }));

  it('halt it when the state topic was made again, and again when it is started, until the group begins anew too', () =>
    play(async (scene) => {
      const runner = scene.start(({ key, value }, context) => context.state.put(key!.toString(), value!));
      await scene.write(['a', 0], ['c', 1]);
      await scene.clock.wait(5_000);
      await scene.remakeState();
      // Before anybody looks at the topics again.
      await scene.write(['b', 0]);
      await scene.clock.wait(10_000);
      expect(runner.health().status).toBe('down');
      expect(scene.told.at(-1)).toMatch(/PROCESS_STATE_REMADE: .* was deleted and made again.*delete the group/);
      await runner.stop();
      const again = scene.start(copy);
      await scene.clock.wait(60_000);
      expect(again.health().status).not.toBe('up');
      expect(scene.told.at(-1)).toMatch(/PROCESS_STATE_(REMADE|BEHIND)/);
      await again.stop();
    }));
});

describe('what waits for a slow handler', () => {
  it('S92 is bounded by its bytes too', () =>
    play(async (scene) => {
      const large = Buffer.alloc(100_000);
      const records = Array.from({ length: 100 }, (_, n) => [`${n}`, n % 2, large] as const);
      for (let n = 0; n < 4; n++) await scene.write(...records);
      const runner = scene.start(() => scene.clock.wait(60_000));
      await scene.clock.wait(20_000);
      const queued = [...runner.tasks.values()].reduce((sum, task) => sum + task.queued, 0);
      expect(queued).toBeGreaterThan(50);
      // 16 MB, and a fetch of each partition on top.
      expect(queued).toBeLessThan(250);
      await runner.stop();
    }));

  it.each([
    ['values', { value: Buffer.alloc(100_000) }],
    ['headers', { headers: [['large', Buffer.alloc(100_000)]] }],
  ] as const)('is committed in transactions of bounded bytes: %s', (_, large) =>
    play(async (scene) => {
      const copies: Handle = ({ key, value }, context) => context.send({ topic: 'output', key, value, ...large });
      const runner = scene.start(copies, {}, { maxBatchBytes: 1_000_000 });
      await scene.write(...Array.from({ length: 100 }, (__, n) => [`${n}`, n % 2] as const));
      await scene.clock.wait(20_000);
      expect(await scene.outputs()).toHaveLength(100);
      expect(runner.health().facts['transactions']).toBeGreaterThanOrEqual(10);
      await runner.stop();
    }),
  );
});
