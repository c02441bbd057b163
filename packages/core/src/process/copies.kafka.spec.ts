import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from '@jest/globals';
import { eventually, uniqueName } from '@headwater/testing';
import type { Log, LogReader, LogWriter, OutRecord } from '../log/log.js';
import { committedRecords, produce, textRecord, textsByKey } from '../log/log.testing.js';
import { memoryStore } from './state-store.js';
import { stateTopicOf } from './processor.js';
import type { ProcessRunner } from './process-runner.js';
import { EAGER_COMPACTION, LATER, Sums, observed, up, userState } from './sums.testing.js';

const brokers = process.env['KAFKA_BROKERS']!.split(',');
const script = fileURLToPath(new URL('../../../../test/engine/counting-process.mjs', import.meta.url));
const GAP = 100_000;
const MANY = 1_000_000;
const SESSION_MS = 3_000;

let sums: Sums;

afterEach(() => sums.close());

async function fenced(log: Log): Promise<LogWriter> {
  const writer = log.writer({ transactionalId: uniqueName('writer'), transactionTimeoutMs: 60_000 });
  await writer.fence();
  return writer;
}

async function write(writer: LogWriter, records: readonly OutRecord[]): Promise<void> {
  expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
}

describe('a compacted state topic', () => {
  it(`S10 S11 is restored over ${GAP} missing offsets and emptied batches, and handled on`, async () => {
    sums = await Sums.create(1, EAGER_COMPACTION);
    const { log } = sums;
    const topic = stateTopicOf(sums.name);
    const entry = (key: string, value: string): OutRecord => ({ ...textRecord(topic, key, value), partition: 0 });
    const writer = await fenced(log);
    await write(writer, [entry('s:first', '10')]);
    // The broker keeps the last batch of a producer it still knows, emptied.
    for (let n = 0; n < 12; n++) {
      const other = await fenced(log);
      await write(other, [entry('s:k', 'overwritten')]);
      await other.close();
    }
    for (let n = 0; n < GAP; n += 20_000)
      await write(
        writer,
        Array.from({ length: 20_000 }, (_, i) => entry('s:k', String(n + i))),
      );
    await write(writer, [entry('s:k', '20')]);
    await eventually(async () => {
      await write(writer, [entry('s:roll', '1')]);
      expect((await committedRecords(log, topic)).length).toBeLessThan(100);
    }, LATER);
    await writer.close();
    const { open, applied } = observed(memoryStore);
    const startedAt = performance.now();
    const runner = sums.run({ openStore: open });
    await up(runner);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    expect(applied.entries.length).toBeLessThan(100);
    expect(await userState(runner)).toEqual({ first: '10', k: '20', roll: '1' });
    await produce(log, [textRecord(sums.input, 'k', '1'), textRecord(sums.input, 'first', '1')]);
    await eventually(
      async () => expect(await textsByKey(log, sums.output)).toEqual({ k: ['21'], first: ['11'] }),
      LATER,
    );
  });
});

describe('a standby copy', () => {
  it(`S99 takes over ${MANY} keys within 2 s of the dead owner's session, without a restore`, async () => {
    sums = await Sums.create(1);
    const { log, name, input, output } = sums;
    const writer = await fenced(log);
    for (let n = 0; n < MANY; n += 50_000)
      await write(
        writer,
        Array.from({ length: 50_000 }, (_, i) => ({
          ...textRecord(stateTopicOf(name), `s:key-${n + i}`, String(n + i)),
          partition: 0,
        })),
      );
    await writer.close();
    const group = { sessionTimeoutMs: SESSION_MS };
    const owner = spawn(process.execPath, [script, JSON.stringify({ brokers, name, input, output, group })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const died = once(owner, 'exit');
    sums.closing(async () => {
      owner.kill('SIGKILL');
      await died;
    });
    await once(owner.stdout, 'data');
    const { open, applied } = observed(memoryStore);
    const standby = sums.run({ group, standby: 'all', openStore: open });
    await up(standby);
    await standby.standbyReady();
    expect(standby.get('key-7')).toMatchObject({ at: 'standby', partition: 0, value: Buffer.from('7') });
    await produce(log, [textRecord(input, 'key-7', 'add 1')]);
    await eventually(() => expect(standby.get('key-7').value!.toString()).toBe('8'), LATER);
    const followed = applied.entries.length;
    expect(followed).toBeGreaterThan(MANY);
    const diedAt = performance.now();
    owner.kill('SIGKILL');
    await produce(log, [textRecord(input, 'key-7', 'add 1')]);
    await eventually(async () => expect(await textsByKey(log, output)).toEqual({ 'key-7': ['8', '9'] }), LATER);
    const takeOverMs = performance.now() - diedAt - SESSION_MS;
    expect(takeOverMs).toBeLessThan(2_000);
    expect(applied.entries.length - followed).toBeLessThan(20);
    expect(applied.cleared).toBe(0);
    await sameAsFilled(standby);
    await standby.stop();
    // Without a copy the whole state is read first.
    const cold = observed(memoryStore);
    const startedAt = performance.now();
    const fresh = sums.run({ group, openStore: cold.open });
    await up(fresh);
    expect(performance.now() - startedAt).toBeGreaterThan(takeOverMs);
    expect(cold.applied.entries.length).toBeGreaterThan(MANY);
  });

  /** What was written to the state topic, and 2 more for one key. */
  async function sameAsFilled(runner: ProcessRunner): Promise<void> {
    let wrong = 0;
    for (let i = 0; i < MANY; i++) {
      const { at, value } = runner.get(`key-${i}`);
      if (at !== 'owner' || Number(value!.toString()) !== (i === 7 ? 9 : i)) wrong++;
    }
    expect(wrong).toBe(0);
  }

  it('tells of each key which partition has it, and whether it is here, as owner or as standby', async () => {
    sums = await Sums.create(4);
    const keys = Array.from({ length: 40 }, (_, i) => `key-${i}`);
    await sums.add(keys, 2);
    const alone = sums.run();
    expect(alone.get('key-1')).toMatchObject({ at: 'elsewhere', value: undefined });
    await up(alone);
    await sums.exactly();
    expect(keys.map((key) => [alone.get(key).at, alone.get(key).value!.toString()])).toEqual(
      keys.map(() => ['owner', '2']),
    );
    expect(alone.get('nobody')).toMatchObject({ at: 'owner', value: undefined });
    const other = sums.run({ log: sums.openLog(), standby: 'all' });
    await eventually(() => expect([alone.tasks.size, other.tasks.size]).toEqual([2, 2]), LATER);
    await sums.add(keys, 1);
    await sums.exactly();
    await eventually(() => {
      for (const key of keys) {
        const [here, there] = [alone.get(key), other.get(key)];
        expect(there.value!.toString()).toBe('3');
        expect([here.at, there.at]).toEqual(here.at === 'owner' ? ['owner', 'standby'] : ['elsewhere', 'owner']);
        expect(alone.tasks.has(here.partition)).toBe(here.at === 'owner');
      }
    }, LATER);
  });
});

/** A log whose readers of the topic bring nothing until it is opened. */
function gated(
  log: Log,
  topic: string,
): { readonly log: Log; readonly reached: Promise<void>; readonly open: () => void } {
  let open!: () => void;
  let reach!: () => void;
  const opened = new Promise<void>((resolve) => (open = resolve));
  const reached = new Promise<void>((resolve) => (reach = resolve));
  const reader = (): LogReader => {
    const real = log.reader();
    let isGated = false;
    return {
      seek(of, partition, offset) {
        isGated ||= of === topic;
        real.seek(of, partition, offset);
      },
      drop: (of, partition) => real.drop(of, partition),
      pause: (of, partition) => real.pause(of, partition),
      resume: (of, partition) => real.resume(of, partition),
      async poll(options) {
        if (isGated) {
          reach();
          await opened;
        }
        return real.poll(options);
      },
      close: () => real.close(),
    };
  };
  return { log: { ...log, reader }, reached, open };
}

describe('a table of all partitions', () => {
  it('S100 answers on each of three instances for every key at its offset, also after a restart, before the first record', async () => {
    sums = await Sums.create(3);
    const { log } = sums;
    const topic = uniqueName('rates');
    await log.admin.ensureTopics([{ topic, partitions: 8, cleanupPolicy: 'compact' }]);
    const keys = Array.from({ length: 500 }, (_, i) => `rate-${i}`);
    const expected = new Map(keys.map((key, i) => [key, String(i)]));
    await produce(
      log,
      keys.map((key, i) => textRecord(topic, key, String(i))),
    );
    const definition = sums.definition({
      tables: [topic],
      onRecord: ({ key, value }, context) =>
        context.send(
          textRecord(
            sums.output,
            key!.toString(),
            context.table(topic).get(value!.toString())?.toString() ?? 'unknown',
          ),
        ),
    });
    const start = () => sums.run({ log: sums.openLog() }, definition);
    const ask = (value: string) =>
      produce(
        log,
        Array.from({ length: 12 }, (_, i) => textRecord(sums.input, `asks-${i}`, value)),
      );
    const instances = [start(), start(), start()];
    await ask('rate-42');
    await Promise.all(instances.map(up));
    const same = async () => {
      const ends = new Map(
        (await log.admin.offsets(topic)).map(({ partition, lastStable }) => [partition, lastStable]),
      );
      for (const runner of instances) {
        const table = runner.table(topic);
        expect(table.offsets).toEqual(ends);
        expect(new Map(keys.map((key) => [key, table.get(key)?.toString()]))).toEqual(
          new Map(keys.map((key) => [key, expected.get(key)])),
        );
      }
    };
    await same();
    await produce(log, [
      ...keys.slice(0, 100).map((key) => textRecord(topic, key, 'new')),
      textRecord(topic, 'rate-200', null),
    ]);
    for (const key of keys.slice(0, 100)) expected.set(key, 'new');
    expected.delete('rate-200');
    await eventually(same, LATER);
    await instances.pop()!.stop();
    await Promise.all(instances.splice(0).map((runner) => runner.stop()));
    await ask('rate-99');
    const before = Object.values(await textsByKey(log, sums.output)).flat().length;
    const gate = gated(sums.openLog(), topic);
    instances.push(sums.run({ log: gate.log }, definition));
    await gate.reached;
    // Another processor comes and handles all of this input, while the one without its table has not begun.
    const other = await Sums.create(3);
    sums.closing(() => other.close());
    const counting = other.run(
      { log: sums.openLog() },
      other.definition({ inputs: [sums.input], onRecord: () => undefined }),
    );
    await eventually(() => expect(counting.health().facts['handled']).toBe(24), LATER);
    expect(instances[0]!.health().status).toBe('starting');
    expect(Object.values(await textsByKey(log, sums.output)).flat()).toHaveLength(before);
    gate.open();
    instances.push(start());
    const answers = async () => Object.values(await textsByKey(log, sums.output));
    await eventually(
      async () => expect(await answers()).toEqual(Array.from({ length: 12 }, () => ['42', 'new'])),
      LATER,
    );
    await eventually(same, LATER);
    expect(() => instances[0]!.table('undeclared')).toThrow(expect.objectContaining({ code: 'PROCESS_TABLE_UNKNOWN' }));
  });
});
