import { afterAll, afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { parkedNameOf } from '@headwater/cdc';
import { eventually } from '@headwater/testing';
import { parkingTopics } from '../../../cdc/src/parking/parked-topics.js';
import { brokers, Source } from '../../../cdc/src/source.testing.js';
import { Configs, Headwater, headwater } from '../cli.testing.js';
import type { CaptureStats } from './capture-stats.js';

const configs = new Configs();
let source: Source;
let running: Headwater[];
let file: string;
beforeEach(async () => {
  source = await Source.open();
  running = [];
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE b (id int PRIMARY KEY, b text)');
  await source.topics(['a', 'b'], 1, { 'max.message.bytes': '20000' });
  file = configs.write({
    name: source.name,
    postgres: { connectionString: source.url },
    kafka: { brokers },
    tables: ['a', 'b'].map((table) => ({ table: `public.${table}`, topic: source.topic(table) })),
    topics: { manage: false },
    onRefused: 'park',
  });
});
afterEach(async () => {
  await Promise.all(running.map((one) => one.kill('SIGKILL')));
  await source.log.admin.deleteTopics([`headwater.${name()}.parked`]);
  await source.close();
});
afterAll(() => configs.remove());

async function capture(): Promise<Headwater> {
  const one = new Headwater(['capture', '--config', file, '--stats']);
  running.push(one);
  await eventually(() => expect([one.lines<CaptureStats>().at(-1)?.state, one.err]).toEqual(['streaming', one.err]));
  return one;
}

const parked = (...args: string[]) => headwater('parked', ...args, '--config', file);
const name = () => parkedNameOf(source.name);
const order = ['--reason', 'the topic takes more now', '--yes'];
const large = (id: number, table = 'a') => source.sql.query(`INSERT INTO ${table} VALUES (${id}, repeat('x', 50000))`);

async function counted(key: string, count: number): Promise<void> {
  await eventually(async () => {
    const { out } = await parked('show', name(), `${source.topic('a')}/${key}`, '--json');
    expect((JSON.parse(out || '{"units":[]}') as { units: unknown[] }).units).toHaveLength(count);
  });
}

describe('headwater parked, of a capture', () => {
  it('C28 C81 lists, shows, retries and discards what a capture parked, over a kill -9 of it', async () => {
    const first = await capture();
    for (const id of [1, 2]) await large(id);
    await large(1, 'b');
    await source.sql.query(`INSERT INTO a VALUES (3, 'small')`);
    await source.seenCount('a', 1);
    expect(first.err).toMatch(/parked c of public\.a with key "1" at .*max\.message\.bytes/);
    await first.kill('SIGKILL');
    await source.sql.query(`UPDATE a SET b = 'later' WHERE id IN (1, 2)`);
    await capture();
    for (const key of ['1', '2']) await counted(key, 2);
    const list = await parked('list', name());
    expect(list.out.split('\n').toSorted()).toEqual([
      expect.stringMatching(new RegExp(`^${source.topic('a')}/1  2 parked .*CDC_RECORD_REFUSED: the record takes 50`)),
      expect.stringMatching(new RegExp(`^${source.topic('a')}/2  2 parked`)),
      expect.stringMatching(new RegExp(`^${source.topic('b')}/1  1 parked`)),
    ]);
    // A key of two tables needs its topic.
    const ambiguous = await parked('show', name(), '1');
    expect(ambiguous).toMatchObject({ code: 1, err: expect.stringContaining(`name one: ${source.topic('a')}/1`) });
    const shown = await parked('show', name(), `${source.topic('a')}/1`);
    expect(shown.out).toMatch(
      /^c of public\.a at [\dA-F/]+ \(transaction \d+, 0\) .*\n.*xxx.*\nu of public\.a at .*KEY_PARKED/,
    );
    const early = await parked('retry', name(), '2', ...order);
    expect(early).toMatchObject({ code: 1, out: expect.stringMatching(/^Failed again: 0 handled, 0 dropped, 2 left/) });
    await source.log.admin.applyTopics([
      { topic: source.topic('a'), partitions: 1, cleanupPolicy: 'compact', config: { 'max.message.bytes': '100000' } },
    ]);
    expect(await parked('retry', name(), `${source.topic('a')}/1`, ...order)).toMatchObject({
      code: 0,
      out: 'Done: 2 handled, 0 dropped, 0 left.',
    });
    expect(await parked('discard', name(), '2', ...order)).toMatchObject({
      out: 'Done: 0 handled, 1 dropped, 1 left.',
    });
    expect(await parked('retry', name(), '2', ...order)).toMatchObject({ out: 'Done: 1 handled, 0 dropped, 0 left.' });
    expect((await source.seenCount('a', 4)).map(({ key, op, value }) => `${key} ${op} ${value!.length}`)).toEqual([
      '3 c 20',
      '1 c 50015',
      '1 u 20',
      '2 u 20',
    ]);
    expect((await parked('list', name())).out).toMatch(new RegExp(`^${source.topic('b')}/1  1 parked[^\\n]*$`));
    await running.at(-1)!.kill('SIGTERM');
    await source.slotFree();
    const dropped = await headwater('drop', '--config', file, '--json');
    expect(JSON.parse(dropped.out)).toMatchObject({ removed: ['slot', 'publication', 'parked', 'position'] });
    const names = parkingTopics(source.name).map(({ topic }) => topic);
    expect([...(await source.log.admin.partitionCounts(names)).keys()]).toEqual([`headwater.${name()}.parked`]);
  });
});
