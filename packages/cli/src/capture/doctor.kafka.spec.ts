import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Examination } from '@headwater/cdc';
import { eventually } from '@headwater/testing';
import { brokers, Source } from '../../../cdc/src/source.testing.js';
import { Configs, headwater } from '../cli.testing.js';

let source: Source;
let configs: Configs;
beforeAll(() => {
  configs = new Configs();
});
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
});
afterEach(() => source.close());
afterAll(() => configs.remove());

const config = (more: object = {}) =>
  configs.write({
    name: source.name,
    postgres: { connectionString: source.url },
    kafka: { brokers },
    tables: ['public.a'],
    topics: { prefix: source.name, partitions: 1, replicationFactor: 1 },
    ...more,
  });

async function examined(
  file: string,
): Promise<{ code: number | null; found: Record<string, string>; facts: Examination['facts'] }> {
  const { code, out, err } = await headwater('doctor', '--config', file, '--json');
  expect(err).toBe('');
  const { findings, facts } = JSON.parse(out) as Examination;
  const told = findings.filter(({ severity }) => severity !== 'advice');
  return {
    code,
    found: Object.fromEntries(told.map(({ about, message, fix }) => [about, `${message} ${fix}`])),
    facts,
  };
}

describe('headwater doctor', () => {
  it('finds nothing where nothing is wrong, with figures of the slot, and changes nothing', async () => {
    expect(await examined(config())).toMatchObject({ code: 0, found: {}, facts: { exists: false } });
    expect(await source.slotFacts()).toBeUndefined();
    expect((await source.log.admin.partitionCounts([source.positionTopic])).size).toBe(0);
    await source.started(['a'], {
      tables: [{ table: 'public.a', topic: `${source.name}.public.a` }],
      topics: { partitions: 1 },
    });
    const { code, found, facts } = await examined(config());
    expect([code, found]).toEqual([0, {}]);
    expect(facts).toMatchObject({
      exists: true,
      active: true,
      walStatus: 'reserved',
      retainedBytes: expect.any(Number),
    });
    const text = await headwater('doctor', '--config', config());
    expect(text).toMatchObject({ code: 0, out: expect.stringMatching(new RegExp(`^${source.name}: well`)) });
  });

  it('warns of keys that are not unique, and of topics of tables that forget rows', async () => {
    await source.sql.query(
      `CREATE TABLE loose (id int, b text); ALTER TABLE loose REPLICA IDENTITY FULL; CREATE UNIQUE INDEX ON loose (id) WHERE b = '';
       CREATE TABLE firm (id int NOT NULL UNIQUE, b text); ALTER TABLE firm REPLICA IDENTITY FULL`,
    );
    await source.topics(['a', 'loose', 'firm']);
    const forgets = { topic: source.topic('forgets'), partitions: 1, cleanupPolicy: 'delete' } as const;
    await source.log.admin.ensureTopics([forgets]);
    const table = (name: string, topic = source.topic(name)) => ({
      table: `public.${name}`,
      topic,
      keyColumns: ['id'],
    });
    const tables = [table('a', forgets.topic), table('loose'), table('firm')];
    const { code, found } = await examined(config({ tables, topics: { manage: false } }));
    await source.log.admin.deleteTopics([forgets.topic]);
    expect([code, Object.keys(found).toSorted((x, y) => (x < y ? -1 : 1))]).toEqual([
      2,
      [forgets.topic, 'public.loose'],
    ]);
    expect(found['public.loose']).toMatch(
      /CREATE UNIQUE INDEX ON public.loose \("id"\); ALTER TABLE public.loose ALTER "id" SET NOT NULL/,
    );
    expect(found[forgets.topic]).toMatch(/cleanup.policy=delete.*--add-config cleanup.policy=compact/);
  });

  it('names every fault of tables, topics and slot with its fix', async () => {
    const { admin } = source.log;
    await source.sql.query(
      'CREATE TABLE nokey (id int); CREATE TABLE bare (id int PRIMARY KEY); ALTER TABLE bare REPLICA IDENTITY NOTHING',
    );
    await admin.ensureTopics([{ topic: `${source.name}.public.a`, partitions: 2, cleanupPolicy: 'delete' }]);
    await source.sql.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [source.slot]);
    const { code, found } = await examined(
      config({ tables: ['public.a', 'public.nokey', 'public.bare', 'public.none'] }),
    );
    expect(code).toBe(2);
    expect(found).toMatchObject({
      'public.nokey': expect.stringMatching(/no primary key. Add one/),
      'public.bare': expect.stringMatching(/REPLICA IDENTITY NOTHING.* ALTER TABLE public.bare/),
      'public.none': expect.stringMatching(/no such table. Create it/),
      [`slot ${source.slot}`]: expect.stringMatching(/CDC_SLOT_UNKNOWN/),
      [`${source.name}.public.a`]: expect.stringMatching(
        /cleanup.policy of topic .* is delete.*headwater topics apply/,
      ),
    });
    await source.sql.query('SELECT pg_drop_replication_slot($1)', [source.slot]);
    await admin.deleteTopics([`${source.name}.public.a`]);
  });

  it('says what cannot be reached', async () => {
    const file = config({ postgres: { connectionString: 'postgres://nobody:x@127.0.0.1:1/none' } });
    const { code, found } = await examined(file);
    expect([code, Object.keys(found)]).toEqual([2, ['postgres']]);
    expect(found['postgres']).toMatch(/ECONNREFUSED.*start the server/);
  });
});

describe('headwater capture signal', () => {
  it('takes a filtered snapshot of a running capture, once for its id', async () => {
    const topic = `${source.name}.public.a`;
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 10) g`);
    const tables = [{ table: 'public.a', topic }];
    const file = config();
    const early = await headwater('capture', 'signal', 'snapshot', '--config', file, '--tables', 'public.a');
    expect(early).toMatchObject({ code: 1, err: expect.stringContaining('CDC_SIGNAL_UNSIGNED') });
    await source.started([], { tables, topics: { partitions: 1 } });
    await source.seenIn(topic, 10);
    const asked = [
      'capture',
      'signal',
      'snapshot',
      '--config',
      file,
      '--tables',
      'public.a',
      '--where',
      'id > 7',
      '--id',
      'again',
    ];
    expect(await headwater(...asked, '--dry-run')).toMatchObject({
      code: 0,
      out: expect.stringContaining('Nothing was sent'),
    });
    expect(await headwater(...asked)).toMatchObject({ code: 0, err: '' });
    const seen = await source.seenIn(topic, 13);
    expect(seen.slice(10).map(({ op, key }) => [op, key])).toEqual([
      ['r', '8'],
      ['r', '9'],
      ['r', '10'],
    ]);
    await eventually(async () => {
      const idle = await headwater('capture', 'signal', 'pause', '--config', file);
      expect(idle).toMatchObject({ code: 2, err: expect.stringMatching(/No snapshot is unfinished/) });
    });
    expect(await source.seenIn(topic, 13)).toHaveLength(13);
    const wrong = await headwater('capture', 'signal', 'snapshot', '--config', file, '--tables', 'public.zzz');
    expect(wrong).toMatchObject({
      code: 2,
      err: expect.stringMatching(/public.zzz is not captured.*[^]*--tables public.a/),
    });
  });
});
