import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ProcessRunner, controlTopicOf, groupOf, parkedTopicOf, silentLogger, stateTopicOf } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { eventually, settledOffsets, uniqueName } from '@headwater/testing';

const brokers = process.env['KAFKA_BROKERS']!.split(',');
const bin = join(process.cwd(), 'packages/cli/bin/headwater.mjs');
const log = kafkaLog({ brokers });
const name = uniqueName('cli');
const input = uniqueName('input');
const directory = mkdtempSync(join(tmpdir(), 'headwater-cli-'));
const config = join(directory, 'config.json');
let runner: ProcessRunner;
let broken = true;
const handled: string[] = [];

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** The real bin in a process of its own. */
function headwater(...args: string[]): Promise<Ran> {
  const { KAFKA_BROKERS: _, ...env } = process.env;
  const child = spawn(process.execPath, [bin, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += String(chunk)));
  child.stderr.on('data', (chunk: Buffer) => (err += String(chunk)));
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, out: out.trim(), err: err.trim() })));
}

const withConfig = (...args: string[]) => headwater(...args, '--config', config);

beforeAll(async () => {
  writeFileSync(config, JSON.stringify({ kafka: { brokers } }));
  await log.admin.ensureTopics([
    ...[input, parkedTopicOf(name), controlTopicOf(name)].map(
      (topic) => ({ topic, partitions: 2, cleanupPolicy: 'delete' }) as const,
    ),
    { topic: stateTopicOf(name), partitions: 2, cleanupPolicy: 'compact' },
  ]);
  const onRecord = (record: { value: Buffer | null }) => {
    if (record.value!.toString() === 'bad' && broken) throw new Error('it is bad');
    handled.push(record.value!.toString());
  };
  runner = new ProcessRunner({ name, inputs: [input], onRecord }, { log, logger: silentLogger });
  const writer = log.writer({ transactionalId: uniqueName('load') });
  await writer.fence();
  const record = (value: string) => ({ topic: input, key: Buffer.from('ä key'), value: Buffer.from(value) });
  await writer.transact(['1', 'bad', '2'].map(record));
  await writer.close();
  await eventually(() => expect(runner.health().facts['parked']).toBe(2), { timeoutMs: 40_000 });
});

afterAll(async () => {
  await runner?.stop();
  await log.close();
  rmSync(directory, { recursive: true, force: true });
});

describe('headwater', () => {
  it('explains itself when nothing is asked, and says what to type next when something is wrong', async () => {
    const [nothing, unknown, noBrokers, noReason] = await Promise.all([
      headwater(),
      headwater('prked'),
      headwater('parked', 'list', name),
      withConfig('parked', 'retry', name, 'ä key', '--yes'),
    ]);
    expect(nothing).toMatchObject({ code: 0, err: '' });
    expect(nothing.out).toMatch(
      /^Usage: headwater COMMAND[^]*headwater parked retry PROCESSOR KEY --reason TEXT[^]*headwater topics diff/,
    );
    expect(unknown).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(
        /"prked"[^]*\nType: headwater capture \| doctor \| drop \| groups \| parked \| topics \| transactions$/,
      ),
    });
    expect(noBrokers).toMatchObject({ code: 2, err: expect.stringMatching(/No brokers[^]*\nType: --config FILE/) });
    expect(noReason).toMatchObject({ code: 2, err: expect.stringMatching(/needs a reason[^]*\nType: .*--reason/) });
  });

  it('lists and shows what is parked, and handles it again once it is told to, with the reason kept', async () => {
    const listed = await withConfig('parked', 'list', name, '--json');
    expect(listed).toMatchObject({ code: 0, err: '' });
    expect(JSON.parse(listed.out)).toMatchObject([
      { key: 'ä key', count: 2, first: { value: 'bad', reason: 'it is bad' } },
    ]);
    expect((await withConfig('parked', 'show', name, 'ä key')).out).toMatch(
      /HANDLER_FAILED: it is bad\n {2}bad\n.*KEY_PARKED.*\n {2}2$/,
    );
    const retry = ['parked', 'retry', name, 'ä key', '--reason', 'mended', '--by', 'ada'];
    expect(await withConfig(...retry, '--dry-run')).toMatchObject({
      code: 0,
      out: expect.stringContaining('Nothing was changed'),
    });
    expect(await withConfig(...retry)).toMatchObject({ code: 2, err: expect.stringContaining('--yes') });
    expect(await withConfig(...retry, '--yes')).toMatchObject({
      code: 1,
      out: expect.stringMatching(/^Failed again: 0 handled.*it is bad/),
    });
    broken = false;
    const done = await withConfig(...retry, '--yes', '--json');
    expect(done.code).toBe(0);
    expect(JSON.parse(done.out)).toMatchObject({ outcome: 'done', handled: 2, left: 0 });
    expect(handled).toEqual(['1', 'bad', '2']);
    expect((await withConfig('parked', 'list', name)).out).toBe(`${name} has nothing parked.`);
    const gone = await withConfig(...retry, '--yes');
    expect(gone).toMatchObject({ code: 1, err: expect.stringMatching(/PROCESS_NOT_PARKED[^]*headwater parked list/) });
  });

  it('lists the transactions that hold back committed reads, and ends the one it is told to', async () => {
    const topic = uniqueName('held');
    await log.admin.ensureTopics([{ topic, partitions: 2, cleanupPolicy: 'delete' }]);
    const transactionalId = uniqueName('hangs');
    const writer = log.writer({ transactionalId, transactionTimeoutMs: 60_000 });
    await writer.fence();
    const open = writer.begin();
    await open.append([{ topic, partition: 1, key: null, value: Buffer.from('x') }]);
    expect((await withConfig('transactions', 'list', topic)).out).toMatch(/^No transaction .* longer than 60 s/);
    const listed = await withConfig('transactions', 'list', topic, '--older-than', '0');
    expect(listed.out).toMatch(new RegExp(`^${topic}-1, offset 0: of ${transactionalId}, since 20`));
    const abort = ['transactions', 'abort', topic, '1', '0'];
    expect(await withConfig(...abort)).toMatchObject({ code: 2, err: expect.stringMatching(/--yes, or --dry-run/) });
    expect(await withConfig(...abort, '--dry-run')).toMatchObject({ code: 0 });
    const [held] = (await log.admin.offsets(topic)).filter(({ partition }) => partition === 1);
    expect(held).toMatchObject({ lastStable: 0, high: 1 });
    const ended = await withConfig(...abort, '--yes', '--json');
    expect([ended.code, JSON.parse(ended.out)]).toMatchObject([0, { over: true, transactionalId, firstOffset: 0 }]);
    const [free] = (await log.admin.offsets(topic)).filter(({ partition }) => partition === 1);
    expect(free!.lastStable).toBe(free!.high);
    expect(await open.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(await withConfig(...abort, '--yes')).toMatchObject({ code: 1, out: expect.stringContaining('Nothing was') });
    const wrong = await withConfig('transactions', 'list', topic, '--older-than', 'long');
    expect(wrong).toMatchObject({ code: 2, err: expect.stringContaining('no number of seconds') });
    const typo = await withConfig('transactions', 'list', `${topic}x`);
    expect(typo).toMatchObject({ code: 1, err: expect.stringContaining('LOG_TOPIC_MISSING') });
    expect((await withConfig('transactions', 'abort', topic)).err).toMatch(/needs the partition and the offset/);
    await writer.close();
  });

  it('shows how far a group is behind by partition, and what it has not committed', async () => {
    const behind = uniqueName('behind');
    const [topic, other, state] = [uniqueName('lagging'), uniqueName('other'), stateTopicOf(behind)];
    await log.admin.ensureTopics(
      [topic, other, state].map((of) => ({ topic: of, partitions: 2, cleanupPolicy: 'delete' }) as const),
    );
    const writer = log.writer({ transactionalId: uniqueName('load') });
    await writer.fence();
    const record = (partition: number) => ({ topic, partition, key: null, value: Buffer.from('x') });
    await writer.transact([0, 0, 0, 1].map(record));
    await settledOffsets(log, topic);
    const group = groupOf(behind);
    const offsets = [
      { topic, partition: 0, next: 1 },
      { topic: state, partition: 0, next: 7 },
    ];
    await writer.transact([], { membership: { groupId: group, memberId: '', generation: -1 }, offsets });
    await log.admin.committedOffsets(group, offsets);
    await writer.close();
    const lag = ['groups', 'lag', group];
    const shown = await withConfig(...lag);
    expect(shown).toMatchObject({ code: 0, err: '' });
    const [head, first, second, total] = shown.out.split('\n').map((line) => line.split(/ {2,}/));
    expect([head, first, second]).toEqual([
      ['partition', 'committed', 'last stable', 'lag'],
      [`${topic}-0`, '1', '4', '3'],
      [`${topic}-1`, 'none', '2', '2'],
    ]);
    expect(total!.join()).toMatch(new RegExp(`^Lag of ${group}: 5 offsets. Markers and aborted records count`));
    const listed = await withConfig(...lag, '--topics', `${topic},${other}`, '--json');
    expect([listed.code, JSON.parse(listed.out)]).toEqual([
      0,
      {
        group,
        lag: 5,
        partitions: [
          { topic, partition: 0, committed: 1, lastStable: 4, lag: 3 },
          { topic, partition: 1, committed: null, lastStable: 2, lag: 2 },
          { topic: other, partition: 0, committed: null, lastStable: 0, lag: 0 },
          { topic: other, partition: 1, committed: null, lastStable: 0, lag: 0 },
        ],
      },
    ]);
  });

  it('refuses to show the lag of a group that has committed nothing, and says which name was meant', async () => {
    const [bare, json, typo, none, empty] = await Promise.all([
      withConfig('groups', 'lag', name),
      withConfig('groups', 'lag', name, '--json'),
      withConfig('groups', 'lag', groupOf(name), '--topics', `${input}x`),
      withConfig('groups', 'lag'),
      withConfig('groups', 'lag', name, '--topics', ','),
    ]);
    expect(bare).toMatchObject({ code: 1, out: '' });
    expect(bare.err).toMatch(
      new RegExp(`^CLI_NOTHING_COMMITTED: group ${name} [^]*Type: headwater groups lag ${groupOf(name)}`),
    );
    expect(json.code).toBe(1);
    expect(JSON.parse(json.err)).toMatchObject({ error: { code: 'CLI_NOTHING_COMMITTED' } });
    expect(typo).toMatchObject({ code: 1, err: expect.stringContaining('LOG_TOPIC_MISSING') });
    expect(none).toMatchObject({ code: 2, err: expect.stringMatching(/group is missing[^]*groups lag GROUP$/) });
    expect(empty).toMatchObject({ code: 2, err: expect.stringContaining('--topics names no topic') });
  });

  it('tells how topics differ from a file, and makes them so', async () => {
    const topic = uniqueName('wanted');
    const file = join(directory, 'topics.json');
    const write = (partitions: unknown) =>
      writeFileSync(
        file,
        JSON.stringify({ kafka: { brokers }, topics: [{ topic, partitions, cleanupPolicy: 'compact' }] }),
      );
    write('two');
    expect(await headwater('topics', 'diff', '--config', file)).toMatchObject({
      code: 2,
      err: expect.stringContaining('topics[0] has no partitions'),
    });
    write(2);
    const differs = await headwater('topics', 'diff', '--config', file, '--json');
    expect(differs.code).toBe(2);
    expect(JSON.parse(differs.out)).toMatchObject({ differences: [{ topic }] });
    expect((await headwater('topics', 'apply', '--config', file, '--dry-run')).code).toBe(0);
    expect(await log.admin.partitionCounts([topic])).toEqual(new Map());
    expect((await headwater('topics', 'apply', '--config', file)).code).toBe(2);
    expect((await headwater('topics', 'apply', '--config', file, '--yes')).code).toBe(0);
    expect(await headwater('topics', 'diff', '--config', file)).toMatchObject({ code: 0, out: 'No differences.' });
    write(3);
    const refused = await headwater('topics', 'apply', '--config', file, '--yes');
    expect(refused).toMatchObject({ code: 1, err: expect.stringContaining('LOG_TOPIC_MISMATCH') });
  });
});
