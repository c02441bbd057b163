import { expect, it } from '@jest/globals';
import { uniqueName } from '../unique-name.js';
import { one, recordsOf, texts, type Bench } from './log-under-test.js';

export function readerCases(bench: Bench): void {
  it('S46 S108 leaves out the records of two writers that abort in interleaved order', async () => {
    const topic = await bench.topic();
    const [a, b] = [await bench.writer(), await bench.writer()];
    const [ofA, ofB] = [a.begin(), b.begin()];
    await ofA.append(one(topic, 'A1'));
    await ofB.append(one(topic, 'B1'));
    await ofA.append(one(topic, 'A2'));
    await ofB.append(one(topic, 'B2'));
    expect(await ofB.abort()).toMatchObject({ outcome: 'aborted' });
    await ofA.append(one(topic, 'A3'));
    expect(await ofA.abort()).toMatchObject({ outcome: 'aborted' });
    expect(await b.transact(one(topic, 'OK'))).toMatchObject({ outcome: 'committed' });
    expect(await bench.texts(topic)).toEqual(['OK']);
  });

  it('S47 S108 leaves out the rest of an aborted transaction a fetch begins inside of', async () => {
    const topic = await bench.topic();
    const writer = await bench.writer();
    const aborted = writer.begin();
    for (let n = 0; n < 6; n++) await aborted.append([...one(topic, `${n}a`), ...one(topic, `${n}b`)]);
    await aborted.abort();
    await writer.transact(one(topic, 'OK'));
    for (const from of [0, 1, 5, 11]) expect(texts(await bench.readTo(topic, from, 'OK'))).toEqual(['OK']);
  });

  it('S48 S108 shows every committed and no aborted transaction of one writer, whatever their keys', async () => {
    const topic = await bench.topic();
    const writer = await bench.writer();
    const zeros = Buffer.alloc(4);
    for (let n = 0; n < 5; n++) {
      const aborted = writer.begin();
      await aborted.append([...one(topic, `aborted ${n}`, zeros), ...one(topic, `aborted ${n}`, Buffer.from('k'))]);
      await aborted.abort();
      await writer.transact(one(topic, `committed ${n}`, zeros));
    }
    expect(await bench.texts(topic)).toEqual([0, 1, 2, 3, 4].map((n) => `committed ${n}`));
  });

  it('S108 reads nothing past an open transaction, then all of it in the order of the log', async () => {
    const topic = await bench.topic();
    const [a, b] = [await bench.writer({ transactionTimeoutMs: 30_000 }), await bench.writer()];
    const open = a.begin();
    await b.transact(one(topic, 'before'));
    await open.append(one(topic, 'open'));
    await b.transact(one(topic, 'behind'));
    const reader = bench.log.reader();
    expect(texts(await bench.readTo(topic, 0, 'before', reader))).toEqual(['before']);
    expect(await reader.poll({ maxWaitMs: 50 })).toEqual([]);
    expect(await open.commit()).toMatchObject({ outcome: 'committed' });
    const rest = [];
    while (rest.length < 2) rest.push(...texts(recordsOf(await reader.poll())));
    expect(rest).toEqual(['open', 'behind']);
    await reader.close();
  });

  it('S108 moves on over what it does not show', async () => {
    const topic = await bench.topic();
    const aborted = (await bench.writer()).begin();
    await aborted.append(one(topic, 'aborted'));
    await aborted.abort();
    await bench.committed(topic);
    const reader = bench.log.reader();
    reader.seek(topic, 0, 0);
    expect(await reader.poll({ maxWaitMs: 10_000 })).toEqual([
      { topic, partition: 0, from: 0, records: [], nextOffset: 2, lastStableOffset: 2, highWatermark: 2 },
    ]);
    expect(await reader.poll({ maxWaitMs: 20 })).toEqual([]);
    await reader.close();
  });

  it('S108 reads from where it was sought last, back and forth, and nothing of what was dropped', async () => {
    const topic = await bench.topic(2);
    const writer = await bench.writer();
    // Markers of one transaction may stand behind the records of the next: only the log tells where a record is.
    const place = new Map<string, readonly number[]>();
    for (const text of ['a', 'b', 'c']) {
      const end = await writer.transact([
        ...one(topic, text),
        { topic, partition: 1, key: null, value: Buffer.from(text) },
      ]);
      if (end.outcome !== 'committed') throw end.cause;
      const at = [...end.appended].sort((a, b) => a.partition - b.partition);
      place.set(
        text,
        at.map(({ next }) => next - 1),
      );
    }
    await bench.committed(topic);
    const reader = bench.log.reader();
    expect(texts(await bench.readTo(topic, 0, 'c', reader))).toEqual(['a', 'b', 'c']);
    expect(texts(await bench.readTo(topic, place.get('b')![0]!, 'c', reader))).toEqual(['b', 'c']);
    reader.drop(topic, 0);
    const last = place.get('c')![1]!;
    reader.seek(topic, 1, last);
    expect(
      (await reader.poll({ maxWaitMs: 10_000 })).map(({ partition, from, records }) => [
        partition,
        from,
        ...texts(records),
      ]),
    ).toEqual([[1, last, 'c']]);
    await reader.close();
  });

  it('S108 hands out nothing of what is paused, and goes on where it stood when it is resumed', async () => {
    const topic = await bench.topic(2);
    const writer = await bench.writer();
    const both = (text: string) =>
      [0, 1].map((partition) => ({ topic, partition, key: null, value: Buffer.from(`${text}${partition}`) }));
    await writer.transact(both('a'));
    await bench.committed(topic);
    const reader = bench.log.reader();
    const seen: (string | null)[] = [];
    const readTo = async (last: string) => {
      while (!seen.includes(last)) seen.push(...texts(recordsOf(await reader.poll())));
    };
    for (const partition of [0, 1]) reader.seek(topic, partition, 0);
    reader.pause(topic, 0);
    await readTo('a1');
    reader.resume(topic, 0);
    await readTo('a0');
    reader.pause(topic, 0);
    await writer.transact(both('b'));
    await readTo('b1');
    expect(await reader.poll({ maxWaitMs: 20 })).toEqual([]);
    reader.resume(topic, 0);
    await readTo('b0');
    expect(seen.splice(0)).toEqual(['a1', 'a0', 'b1', 'b0']);
    // Another place is read from, paused or not before.
    reader.pause(topic, 0);
    reader.seek(topic, 0, 0);
    await readTo('b0');
    expect(seen).toEqual(['a0', 'b0']);
    reader.pause(topic, 1);
    reader.drop(topic, 0);
    expect(await reader.poll({ maxWaitMs: 20 })).toEqual([]);
    await reader.close();
  });

  it('S108 names the offset and the range of the log when a position is not in it', async () => {
    const topic = await bench.topic();
    await (await bench.writer()).transact(one(topic, 'x'));
    await bench.committed(topic);
    const reader = bench.log.reader();
    reader.seek(topic, 0, 77);
    await expect(reader.poll({ maxWaitMs: 10_000 })).rejects.toMatchObject({
      code: 'LOG_OFFSET_OUT_OF_RANGE',
      facts: { topic, partition: 0, offset: 77, start: 0, high: 2 },
    });
    reader.drop(topic, 0);
    expect(await reader.poll({ maxWaitMs: 10 })).toEqual([]);
    await reader.close();
  });

  it('S108 ends a poll after its time and at its signal, and reads on after it', async () => {
    const topic = await bench.topic();
    const reader = bench.log.reader();
    expect(await reader.poll({ maxWaitMs: 20 })).toEqual([]);
    reader.seek(topic, 0, 0);
    expect(await reader.poll({ maxWaitMs: 50 })).toEqual([]);
    const stop = new AbortController();
    const polling = reader.poll({ maxWaitMs: 60_000, signal: stop.signal });
    stop.abort();
    expect(await polling).toEqual([]);
    await (await bench.writer()).transact(one(topic, 'later'));
    expect(texts(await bench.readTo(topic, 0, 'later', reader))).toEqual(['later']);
    await reader.close();
  });

  it('S108 is woken by a commit', async () => {
    const topic = await bench.topic();
    const reader = bench.log.reader();
    reader.seek(topic, 0, 0);
    const polling = reader.poll({ maxWaitMs: 60_000 });
    expect(await (await bench.writer()).transact(one(topic, 'wake'))).toMatchObject({ outcome: 'committed' });
    expect(texts(recordsOf(await polling))).toEqual(['wake']);
    await reader.close();
  });

  it('S108 finds a topic that is made after it was sought', async () => {
    const topic = uniqueName('late');
    const reader = bench.log.reader();
    reader.seek(topic, 0, 0);
    expect(await reader.poll({ maxWaitMs: 20 })).toEqual([]);
    await bench.log.admin.ensureTopics([{ topic, partitions: 1, cleanupPolicy: 'compact' }]);
    await (await bench.writer()).transact(one(topic, 'x', Buffer.from('k')));
    expect(texts(await bench.readTo(topic, 0, 'x', reader))).toEqual(['x']);
    await reader.close();
  });

  it('S108 ends a poll in flight when it is closed, and with its log', async () => {
    const topic = await bench.topic();
    const log = await bench.another();
    for (const close of [(reader: { close(): Promise<void> }) => reader.close(), () => log.close()]) {
      const reader = log.reader();
      reader.seek(topic, 0, 0);
      const refused = expect(reader.poll({ maxWaitMs: 60_000 })).rejects.toMatchObject({ code: 'LOG_CLOSED' });
      await close(reader);
      await refused;
    }
  });
}
