import { expect, it } from '@jest/globals';
import { memoryLog } from '@headwater/testing';
import { tableShape } from '../rows.js';
import { Leftovers } from './leftovers.js';
import { topicEndsOf } from './snapshot-state.js';

it('N7 does not bury a key whose row is written and not decided yet', async () => {
  const { log } = memoryLog().client();
  await log.admin.ensureTopics([{ topic: 'a', partitions: 1, cleanupPolicy: 'compact' }]);
  const record = (key: string, value: string | null) => ({
    topic: 'a',
    key: Buffer.from(key),
    value: value === null ? null : Buffer.from(value),
    headers: [['hw_table', Buffer.from('public.a')]] as const,
  });
  const writer = log.writer({ transactionalId: 't' });
  await writer.fence();
  await writer.transact([record('lost', '1'), record('back', '1'), record('gone', '1')]);
  await writer.transact([record('gone', null)]);
  const ends = await topicEndsOf(log, 'a');
  const open = writer.begin();
  await open.append([record('back', '2'), record('new', '1')]);
  const shape = tableShape({ table: 'public.a', topic: 'a' }, [{ name: 'id', encode: (text) => text }], ['id']);
  const left = new Leftovers(log, shape, ends, 0, 1);
  const looking = left.readOn(new AbortController().signal);
  expect(await open.commit()).toMatchObject({ outcome: 'committed' });
  await looking;
  expect([...left.places]).toEqual(['lost']);
  await writer.close();
});
