import { expect, it } from '@jest/globals';
import { eventually } from '../eventually.js';
import { uniqueName } from '../unique-name.js';
import { one, type Bench } from './log-under-test.js';

export function fencingCases(bench: Bench): void {
  it('S108 refuses a writer that has not fenced', async () => {
    const topic = await bench.topic();
    const writer = bench.log.writer({ transactionalId: uniqueName('writer') });
    const notReady = { outcome: 'aborted', cause: { code: 'LOG_WRITER_NOT_READY' }, fenced: 'writer' };
    expect(await writer.transact([])).toMatchObject(notReady);
    expect(await writer.transact(one(topic, 'x'))).toMatchObject(notReady);
    expect(await bench.texts(topic)).toEqual([]);
  });

  it('S108 fences a zombie writer, whose open transaction is never seen', async () => {
    const topic = await bench.topic();
    const transactionalId = uniqueName('writer');
    const zombie = await bench.writer({ transactionalId });
    const transaction = zombie.begin();
    await transaction.append(one(topic, 'zombie'));
    const successor = await bench.writer({ transactionalId });
    expect(await successor.transact(one(topic, 'successor'))).toMatchObject({ outcome: 'committed' });
    await expect(transaction.append(one(topic, 'late'))).rejects.toMatchObject({ code: 'LOG_WRITER_FENCED' });
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(await zombie.transact(one(topic, 'later'))).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(await bench.texts(topic)).toEqual(['successor']);
  });

  it('S108 refuses the commit of a writer that was fenced after its last append', async () => {
    const topic = await bench.topic();
    const transactionalId = uniqueName('writer');
    const zombie = await bench.writer({ transactionalId });
    const transaction = zombie.begin();
    await transaction.append(one(topic, 'zombie'));
    const successor = await bench.writer({ transactionalId });
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(await successor.transact(one(topic, 'successor'))).toMatchObject({ outcome: 'committed' });
    // Whoever was fenced may come back, and fences in turn.
    await zombie.fence();
    expect(await zombie.transact(one(topic, 'back'))).toMatchObject({ outcome: 'committed' });
    expect(await successor.transact(one(topic, 'late'))).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    expect(await bench.texts(topic)).toEqual(['successor', 'back']);
  });

  it('S108 lets one of two writers live that fence at the same time', async () => {
    const topic = await bench.topic();
    const transactionalId = uniqueName('writer');
    const writers = [0, 1].map(() => bench.log.writer({ transactionalId }));
    await Promise.all(writers.map((writer) => writer.fence()));
    const outcomes = [];
    for (const [n, writer] of writers.entries()) outcomes.push(await writer.transact(one(topic, `${n}`)));
    expect(outcomes.filter(({ outcome }) => outcome === 'committed')).toHaveLength(1);
    expect(outcomes.find(({ outcome }) => outcome !== 'committed')).toMatchObject({
      outcome: 'aborted',
      fenced: 'writer',
    });
    expect(await bench.texts(topic)).toEqual([`${outcomes.findIndex(({ outcome }) => outcome === 'committed')}`]);
  });

  it('S108 ends a transaction that is open for too long, and tells its writer', async () => {
    const topic = await bench.topic();
    const writer = await bench.writer({ transactionTimeoutMs: 500 });
    const transaction = writer.begin();
    await transaction.append(one(topic, 'slow'));
    // The log has ended it when the last stable offset has passed the record.
    await eventually(async () => expect((await bench.log.admin.offsets(topic))[0]!.lastStable).toBeGreaterThan(0));
    expect(await transaction.commit()).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    await writer.fence();
    expect(await writer.transact(one(topic, 'again'))).toMatchObject({ outcome: 'committed' });
    expect(await bench.texts(topic)).toEqual(['again']);
  });

  for (const what of ['request', 'answer'] as const) {
    it(`S108 says that a commit is unknown when its ${what} is lost; after a fence the truth can be read`, async () => {
      const topic = await bench.topic();
      const { log, lose } = await bench.lossy();
      const writer = await bench.writer({ transactionTimeoutMs: 2_000 }, log);
      expect(await writer.transact(one(topic, 'first'))).toMatchObject({ outcome: 'committed' });
      lose(what);
      expect(await writer.transact(one(topic, 'second'))).toMatchObject({ outcome: 'unknown' });
      lose('nothing');
      expect(await writer.transact(one(topic, 'unfenced'))).toMatchObject({
        outcome: 'aborted',
        cause: { code: 'LOG_WRITER_NOT_READY' },
        fenced: 'writer',
      });
      await writer.fence();
      expect(await bench.texts(topic)).toEqual(what === 'answer' ? ['first', 'second'] : ['first']);
      expect(await writer.transact(one(topic, 'third'))).toMatchObject({ outcome: 'committed' });
      expect((await bench.texts(topic)).at(-1)).toBe('third');
    });
  }
}
