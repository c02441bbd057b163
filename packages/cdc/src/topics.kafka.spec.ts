import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { headerText } from '@headwater/core';
import type { CaptureOptions } from './capture.options.js';
import { Source } from './source.testing.js';
import { parseTableName, topicOfTable } from './table-name.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
});
afterEach(async () => {
  await source.close();
});

/** Options whose topics are made by capture, named by prefix, schema and table. */
function created(tables: readonly string[], more: Partial<CaptureOptions> = {}): Partial<CaptureOptions> {
  const named = tables.map((table) => ({ table, topic: topicOfTable(source.name, parseTableName(table)!) }));
  return { tables: named, topics: { partitions: 2, replicationFactor: 1 }, ...more };
}

describe('topics of a capture', () => {
  it('C63 captures quoted, mixed-case and Unicode names into topics of their own', async () => {
    const table = 'public."Größe ""x"""';
    const wanted = new Map([
      [table, `${source.name}.public.Gr-xc3-xb6-xc3-x9fe-x20-x22x-x22`],
      ['"a.b".c', `${source.name}.a-x2eb.c`],
      ['a."b.c"', `${source.name}.a.b-x2ec`],
    ]);
    await source.sql.query(`CREATE SCHEMA "a.b"; CREATE SCHEMA a;
      CREATE TABLE public."Größe ""x""" ("Schlüssel" int PRIMARY KEY, "der ""Wert""" text);
      CREATE TABLE "a.b".c (id int PRIMARY KEY); CREATE TABLE a."b.c" (id int PRIMARY KEY);
      INSERT INTO public."Größe ""x""" VALUES (1, 'snapshot'); INSERT INTO "a.b".c VALUES (1); INSERT INTO a."b.c" VALUES (2)`);
    const names = { slot: source.name, publication: 'MixedCase "pub"' };
    await source.started([], created([...wanted.keys()], names));
    await source.sql.query(`INSERT INTO public."Größe ""x""" VALUES (2, 'stream'); INSERT INTO "a.b".c VALUES (3);
      INSERT INTO a."b.c" VALUES (4)`);
    const records = new Map<string, string[]>();
    for (const [name, topic] of wanted) {
      const seen = await source.seenIn(topic, 2);
      expect(seen.map(({ record }) => headerText(record.headers, 'hw_table'))).toEqual([name, name]);
      records.set(name, seen.map(({ value }) => value!).toSorted());
    }
    expect([...records.values()]).toEqual([
      ['{"Schlüssel":1,"der \\"Wert\\"":"snapshot"}', '{"Schlüssel":2,"der \\"Wert\\"":"stream"}'],
      ['{"id":1}', '{"id":3}'],
      ['{"id":2}', '{"id":4}'],
    ]);
  });

  it('C79 makes missing topics as wanted and refuses others, saying what was wanted and found', async () => {
    await source.sql.query('CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)');
    const options = created(['public.a', 'public.b']);
    const [a, b] = options.tables!.map(({ topic }) => topic);
    const { admin } = source.log;
    await admin.ensureTopics([{ topic: a!, partitions: 3, cleanupPolicy: 'delete' }]);
    await expect(source.started([], options)).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISMATCH',
      message: expect.stringMatching(
        new RegExp(`${a} partitions: wanted 2, found 3.*${a} cleanup.policy: wanted compact, found delete`),
      ),
    });
    expect(await source.slotFacts()).toBeUndefined();
    await admin.deleteTopics([a!]);
    await source.started([], options);
    const position = { topic: source.positionTopic, partitions: 1 };
    const specs = [position, { topic: a!, partitions: 2 }, { topic: b!, partitions: 2 }].map((spec) => {
      return { ...spec, cleanupPolicy: 'compact', replicationFactor: 1 } as const;
    });
    expect(await admin.diffTopics(specs)).toEqual([]);
  });

  it('C79 refuses another replication factor', async () => {
    await source.sql.query('CREATE TABLE a (id int PRIMARY KEY)');
    const options = created(['public.a'], { topics: { partitions: 2, replicationFactor: 3 } });
    await source.log.admin.ensureTopics([
      { topic: options.tables![0]!.topic, partitions: 2, cleanupPolicy: 'compact' },
      { topic: source.positionTopic, partitions: 1, cleanupPolicy: 'compact' },
    ]);
    await expect(source.started([], options)).rejects.toMatchObject({
      code: 'LOG_TOPIC_MISMATCH',
      message: expect.stringMatching(/replication.factor: wanted 3, found 1/),
    });
  });
});
