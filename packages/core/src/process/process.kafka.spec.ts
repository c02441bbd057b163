import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { kafkaLog, type KafkaOptions } from '@headwater/kafka';
import { eventually, faultProxy, type FaultProxy, settledOffsets, uniqueName } from '@headwater/testing';
import { systemClock, type Clock } from '../clock/clock.js';
import { ContractError } from '../errors/headwater.error.js';
import { headerText } from '../log/headers.js';
import type { Log } from '../log/log.js';
import { committedRecords, produce, textRecord, textsByKey } from '../log/log.testing.js';
import { ProcessRunner, type ProcessOptions } from './process-runner.js';
import { parkedTopicOf, stateTopicOf, type ProcessContext, type ProcessorDefinition } from './processor.js';

const brokers = process.env['KAFKA_BROKERS']!.split(',');

let closing: (() => Promise<void>)[];
let log: Log;
let input: string;
let output: string;
let name: string;
let warnings: string[];

beforeEach(() => {
  closing = [];
  warnings = [];
  log = openLog();
  name = uniqueName('counting');
  input = uniqueName('input');
  output = uniqueName('output');
});
afterEach(async () => {
  for (const close of closing.reverse()) await close();
});

function openLog(options: Partial<KafkaOptions> = {}): Log {
  const opened = kafkaLog({ brokers, ...options });
  closing.push(() => opened.close());
  return opened;
}

async function createTopics(partitions: number): Promise<void> {
  await log.admin.ensureTopics([
    { topic: input, partitions, cleanupPolicy: 'delete' },
    { topic: output, partitions, cleanupPolicy: 'delete' },
    { topic: parkedTopicOf(name), partitions, cleanupPolicy: 'delete' },
    { topic: stateTopicOf(name), partitions, cleanupPolicy: 'compact' },
  ]);
}

/** The running sum per key: its state, and one output per record. The value `delete` forgets the key. */
function count(key: string, value: string, context: ProcessContext): void {
  if (value === 'delete') return context.state.delete(key);
  const sum = String(Number(context.state.get(key)?.toString() ?? '0') + Number(value));
  context.state.put(key, Buffer.from(sum));
  context.send(textRecord(output, key, sum));
}

function definition(change: Partial<ProcessorDefinition> = {}): ProcessorDefinition {
  return {
    name,
    inputs: [input],
    onRecord: (record, context) => count(record.key!.toString(), record.value!.toString(), context),
    ...change,
  };
}

function run(of: ProcessorDefinition = definition(), options: Partial<ProcessOptions> = {}): ProcessRunner {
  const logger = { log: () => undefined, error: () => undefined, warn: (text: string) => void warnings.push(text) };
  const runner = new ProcessRunner(of, { log, logger, ...options });
  closing.push(() => runner.stop());
  return runner;
}

const up = (runner: ProcessRunner) =>
  eventually(() => expect(runner.health().status).toBe('up'), { timeoutMs: 40_000 });
const dump = (runner: ProcessRunner) =>
  Promise.all([...runner.tasks].map(async ([partition, task]) => [partition, await task.state.dump()] as const));
const numbers = (keys: readonly string[], each: number) =>
  Array.from({ length: each }, () => keys).flatMap((all) => all.map((key) => textRecord(input, key, '1')));
const expectedSums = (keys: readonly string[], each: number) =>
  Object.fromEntries(keys.map((key) => [key, Array.from({ length: each }, (_, i) => String(i + 1))]));

function seen(expected: Record<string, (string | null)[]>, timeoutMs = 40_000): Promise<void> {
  return eventually(async () => expect(await textsByKey(log, output)).toEqual(expected), {
    timeoutMs,
    intervalMs: 100,
  });
}

describe('ProcessRunner', () => {
  const keys = ['a', 'b', 'c', 'd', 'e'];

  it('S06 S02 restores what was live, 10,000 keys with updates and deletes, and goes on from it', async () => {
    await createTopics(2);
    const many = Array.from({ length: 10_000 }, (_, i) => `key-${i}`);
    const deleted = many.filter((_, i) => i % 10 === 0);
    await produce(log, numbers(many, 1));
    await produce(log, numbers(many.slice(0, 2_000), 1));
    await produce(
      log,
      deleted.map((key) => textRecord(input, key, 'delete')),
    );
    const first = run();
    const ends = (await settledOffsets(log, input)).map(({ partition, high }) => ({
      topic: input,
      partition,
      next: high,
    }));
    const committed = () => log.admin.committedOffsets(`headwater.${name}`, ends);
    // The end is the offset behind the marker; the last record stands before it.
    await eventually(async () => {
      for (const [i, { next }] of (await committed()).entries()) expect(next).toBeGreaterThanOrEqual(ends[i]!.next - 1);
    });
    await first.stop();
    const live = await dump(first);
    const second = run();
    await up(second);
    expect(await dump(second)).toEqual(live);
    expect(live.flatMap(([, entries]) => entries).filter(([entry]) => entry.startsWith('s:'))).toHaveLength(9_000);
    await produce(
      log,
      ['key-0', 'key-1', 'key-9999'].map((key) => textRecord(input, key, '5')),
    );
    await eventually(async () => {
      const texts = await textsByKey(log, output);
      expect([texts['key-0'], texts['key-1'], texts['key-9999']]).toEqual([
        ['1', '2', '5'],
        ['1', '2', '7'],
        ['1', '6'],
      ]);
    });
  });

  it('S07 restores beside a foreign open transaction on the state topic, without its records', async () => {
    await createTopics(1);
    await produce(log, numbers(keys, 3));
    const first = run();
    await seen(expectedSums(keys, 3));
    await first.stop();
    const foreign = log.writer({ transactionalId: uniqueName('foreign'), transactionTimeoutMs: 60_000 });
    await foreign.fence();
    const open = foreign.begin();
    await open.append([{ ...textRecord(stateTopicOf(name), 's:ghost', '1'), partition: 0 }]);
    const second = run();
    await up(second);
    expect(await dump(second)).toEqual(await dump(first));
    const [state] = await log.admin.offsets(stateTopicOf(name));
    expect(state!.lastStable).toBeLessThan(state!.high);
    await open.abort();
    await produce(log, numbers(keys, 1));
    await seen(expectedSums(keys, 4));
    expect(second.tasks.get(0)!.state.get('s:ghost')).toBeUndefined();
  });

  it('S08 S09 restores over aborted records and a log that ends in a control record', async () => {
    await createTopics(1);
    await produce(log, numbers(keys, 1));
    const first = run();
    await seen(expectedSums(keys, 1));
    await first.stop();
    const foreign = log.writer({ transactionalId: uniqueName('foreign') });
    await foreign.fence();
    for (let i = 0; i < 10; i++) {
      const transaction = foreign.begin();
      const entry = i % 2 === 0 ? `s:kept-${i}` : `s:ghost-${i}`;
      await transaction.append([{ ...textRecord(stateTopicOf(name), entry, String(i)), partition: 0 }]);
      if (i % 2 === 0) expect(await transaction.commit()).toMatchObject({ outcome: 'committed' });
      else await transaction.abort();
    }
    const kept = [0, 2, 4, 6, 8].map((i) => [`s:kept-${i}`, Buffer.from(String(i)).toString('base64')] as const);
    const second = run();
    await up(second);
    const live = await first.tasks.get(0)!.state.dump();
    expect(await second.tasks.get(0)!.state.dump()).toEqual([...live, ...kept].sort((a, b) => (a[0] < b[0] ? -1 : 1)));
  });

  it('S59 keeps nothing of a record whose handler throws, then parks it and what follows it on its key', async () => {
    await createTopics(1);
    let attempts = 0;
    const failing = definition({
      onRecord: (record, context) => {
        const [key, value] = [record.key!.toString(), record.value!.toString()];
        if (value === 'poison') {
          attempts++;
          context.state.put(key, Buffer.from('poisoned'));
          context.timers.set(key, 1);
          context.send(textRecord(output, key, 'poisoned'));
          throw new Error('cannot be handled');
        }
        if (value === 'contract') throw new ContractError('record', ['it is wrong']);
        count(key, value, context);
      },
      onTimer: (_, context) => context.send(textRecord(output, 'timer', 'fired')),
    });
    const values: [string, string][] = [
      ['a', '1'],
      ['b', '1'],
      ['a', 'poison'],
      ['b', '1'],
      ['a', '5'],
      ['c', 'contract'],
      ['b', '1'],
      ['c', '1'],
    ];
    await produce(
      log,
      values.map(([key, value]) => textRecord(input, key, value, [['trace', Buffer.from('t')]])),
    );
    const first = run(failing);
    await seen({ a: ['1'], b: ['1', '2', '3'] });
    await first.stop();
    // Also behind a restart the keys stay parked.
    run(failing);
    await produce(log, [textRecord(input, 'a', '7'), textRecord(input, 'b', '1')]);
    await seen({ a: ['1'], b: ['1', '2', '3', '4'] });
    expect(attempts).toBe(3);
    const parked = (await committedRecords(log, parkedTopicOf(name))).map((record) => [
      record.key!.toString(),
      record.value!.toString(),
      headerText(record.headers, 'hw_parked_code'),
      headerText(record.headers, 'hw_parked_offset'),
    ]);
    expect(parked).toEqual([
      ['a', 'poison', 'HANDLER_FAILED', '2'],
      ['a', '5', 'KEY_PARKED', '4'],
      ['c', 'contract', 'CONTRACT_VIOLATED', '5'],
      ['c', '1', 'KEY_PARKED', '7'],
      ['a', '7', 'KEY_PARKED', expect.any(String)],
    ]);
    const [first0] = await committedRecords(log, parkedTopicOf(name));
    expect(headerText(first0!.headers, 'hw_parked_reason')).toBe('cannot be handled');
    expect(headerText(first0!.headers, 'trace')).toBe('t');
    expect(first.tasks.get(0)!.state.get('s:a')!.toString()).toBe('1');
    expect(first.tasks.get(0)!.state.get('t:a')).toBeUndefined();
  });

  it('S59 has the effects of a record once when its handler succeeds at the third attempt', async () => {
    await createTopics(1);
    let failures = 2;
    run(
      definition({
        onRecord: (record, context) => {
          count(record.key!.toString(), record.value!.toString(), context);
          if (failures-- > 0) throw new Error('not yet');
        },
      }),
    );
    await produce(log, numbers(keys, 2));
    await seen(expectedSums(keys, 2));
    expect(await committedRecords(log, parkedTopicOf(name))).toEqual([]);
  });

  it('S61 fires a timer once over restarts before and after it, and never before its time', async () => {
    await createTopics(1);
    let now = 1_000_000;
    const clock: Clock = { ...systemClock, now: () => now };
    const alarms = definition({
      onRecord: (record, context) => {
        const [key, value] = [record.key!.toString(), record.value!.toString()];
        if (value === 'set') context.timers.set(key, 1_060_000);
        else count(key, value, context);
      },
      onTimer: (timer, context) => context.send(textRecord(output, timer.id, `fired ${timer.atMs} at ${context.now}`)),
    });
    const probe = async (sum: number, fired: string[]) => {
      await produce(log, [textRecord(input, 'probe', '1')]);
      const sums = Array.from({ length: sum }, (_, i) => String(i + 1));
      await seen({ probe: sums, ...(fired.length > 0 ? { alarm: fired } : {}) });
    };
    await produce(log, [textRecord(input, 'alarm', 'set')]);
    const first = run(alarms, { clock });
    await probe(1, []);
    await first.stop();
    now = 1_059_999;
    const second = run(alarms, { clock });
    await probe(2, []);
    now = 1_060_007;
    await probe(3, ['fired 1060000 at 1060007']);
    await second.stop();
    now = 9_000_000;
    run(alarms, { clock });
    await probe(4, ['fired 1060000 at 1060007']);
  });

  it('S61 fires no timer that an earlier one of the same moment cancelled or moved', async () => {
    await createTopics(1);
    let now = 1_000;
    const clock: Clock = { ...systemClock, now: () => now };
    run(
      definition({
        onRecord: (record, context) => {
          if (record.value!.toString() === 'set')
            for (const id of ['first', 'cancelled', 'moved']) context.timers.set(id, id === 'first' ? 2_000 : 2_001);
          else count(record.key!.toString(), record.value!.toString(), context);
        },
        onTimer: (timer, context) => {
          context.send(textRecord(output, timer.id, String(timer.atMs)));
          if (timer.id !== 'first') return;
          context.timers.cancel('cancelled');
          context.timers.set('moved', 5_000);
        },
      }),
      { clock },
    );
    await produce(log, [textRecord(input, 'timers', 'set'), textRecord(input, 'probe', '1')]);
    await seen({ probe: ['1'] });
    now = 3_000;
    await produce(log, [textRecord(input, 'probe', '1')]);
    await seen({ probe: ['1', '2'], first: ['2000'] });
    now = 6_000;
    await seen({ probe: ['1', '2'], first: ['2000'], moved: ['5000'] });
  });

  for (const at of ['response', 'request'] as const) {
    const id = at === 'response' ? 'S40' : 'S41';
    it(`${id} starts again from what is committed when EndTxn's ${at} is lost for good, and has f(input) exactly`, async () => {
      await createTopics(2);
      const [host, port] = brokers[0]!.split(':') as [string, string];
      const proxy: FaultProxy = await faultProxy({ target: { host, port: Number(port) }, protocol: 'kafka' });
      closing.push(() => proxy.close());
      const faulty = openLog({
        connect: () => ({ host: proxy.host, port: proxy.port }),
        requestTimeoutMs: 1_000,
      });
      const runner = run(definition(), { log: faulty });
      await produce(log, numbers(keys, 3));
      await seen(expectedSums(keys, 3));
      proxy.decide = (request) => (request.apiName === 'EndTxn' ? { at, act: 'close' } : undefined);
      await produce(log, numbers(keys, 4));
      await eventually(() => expect(warnings.join('\n')).toContain('the transaction ended unknown'), {
        timeoutMs: 40_000,
      });
      proxy.decide = () => undefined;
      await produce(log, numbers(keys, 2));
      await seen(expectedSums(keys, 9));
      await up(runner);
      expect(await committedRecords(log, parkedTopicOf(name))).toEqual([]);
    });
  }
});
