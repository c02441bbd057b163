import { join } from 'node:path';
import { afterEach, expect, it } from '@jest/globals';
import { eventually, runJava, uniqueName } from '@headwater/testing';
import { partitionOf } from '../log/partitioner.js';
import { committedRecords, textRecord } from '../log/log.testing.js';
import { LATER, Sums } from './sums.testing.js';

const PARTITIONS = 5;
/** With keys of several bytes per character, whose hash a wrong encoding would change. */
const KEYS = Array.from({ length: 60 }, (_, i) => `${['key', 'Schlüssel', '鍵', '🔑'][i % 4]}-${i}`);

let sums: Sums;
afterEach(() => sums.close());

it('S104 gives a Java reader and a KTable of its changelog the same keys, values, deletes and partitions', async () => {
  sums = await Sums.create(PARTITIONS);
  const { log } = sums;
  const changelog = uniqueName('changelog');
  await log.admin.ensureTopics([{ topic: changelog, partitions: PARTITIONS, cleanupPolicy: 'compact' }]);
  const runner = sums.run(
    { maxBatchRecords: 50 },
    sums.definition({
      onRecord: ({ key, value }, context) => {
        const name = key!.toString();
        if (value!.toString() === 'delete') {
          context.state.delete(name);
          return context.send({ topic: changelog, key, value: null });
        }
        const sum = String(Number(context.state.get(name)?.toString() ?? '0') + Number(value!.toString()));
        context.state.put(name, Buffer.from(sum));
        context.send({ topic: changelog, key, value: Buffer.from(sum) });
      },
    }),
  );
  await sums.add(KEYS, 1);
  await sums.add(KEYS.slice(0, 20), 'delete');
  await sums.add(KEYS.slice(10, 40), 5);
  // An aborted transaction stands in the way of a reader that does not filter.
  const foreign = log.writer({ transactionalId: uniqueName('foreign') });
  await foreign.fence();
  const aborted = foreign.begin();
  await aborted.append([textRecord(changelog, 'ghost', '1')]);
  await aborted.abort();
  await eventually(async () => {
    // Markers land after the answer to a commit: no lag alone does not say that the input was seen.
    expect(await committedRecords(log, changelog)).toHaveLength(110);
    for (const { lag } of await log.admin.lag(`headwater.${sums.name}`, [sums.input])) expect(lag).toBe(0);
  }, LATER);
  await runner.stop();
  const lines = await runJava(join(process.cwd(), 'packages/core/java/ChangelogTable.java'), [
    process.env['KAFKA_BROKERS']!,
    changelog,
  ]);
  const of = (kind: string) => lines.filter((line) => line.startsWith(`${kind} `)).map((line) => line.slice(kind.length + 1)).sort(byText); // prettier-ignore
  const rows = Object.entries(sums.sums).map(
    ([key, sum]) => `${partitionOf(Buffer.from(key), PARTITIONS)} ${key} ${sum}`,
  );
  expect(of('row')).toEqual(rows.sort(byText));
  expect(of('deleted')).toEqual(KEYS.slice(0, 20).sort(byText));
  expect(of('misplaced')).toEqual([]);
  // A KTable of Kafka Streams holds the same rows, and Streams looks for each key where it is.
  const table = await runJava(
    join(process.cwd(), 'packages/core/java/ChangelogKTable.java'),
    [process.env['KAFKA_BROKERS']!, changelog, String(rows.length)],
    { jars: 'streams' },
  );
  expect(table.filter((line) => line.startsWith('row ')).map((line) => line.slice('row '.length)).sort(byText)).toEqual(rows); // prettier-ignore
  expect(await committedRecords(log, changelog)).toHaveLength(110);
});

const byText = (a: string, b: string): number => (a < b ? -1 : 1);
