import { describe, expect, it } from '@jest/globals';
import { BufferPool } from '@headwater/core';
import { BatchLimits } from './batch-limits.js';
import { CONCURRENT_TRANSACTIONS } from './kafka.errors.js';
import type { Lane } from './lane.js';
import { medianGap } from './median-gap.testing.js';
import { ProducePipeline, type PipelineSender } from './produce-pipeline.js';
import type { EncodedBatch, ProducedPartition } from './requests/produce.js';

type Answered = readonly Omit<ProducedPartition, 'topic'>[];

/** A cluster of one broker whose answers the test writes; it notes what each request held. */
function broker(answer: (requested: readonly string[], n: number) => Answered | Promise<Answered>) {
  const requests: string[][] = [];
  const refreshed: string[] = [];
  const looked: (readonly EncodedBatch[])[] = [];
  const sender: PipelineSender = {
    wire: {
      requestTimeoutMs: 1_000,
      buffers: new BufferPool(),
      batchLimits: new BatchLimits(() => Promise.reject(new Error('nobody is asked'))),
      closing: new AbortController(),
      assertOpen: () => undefined,
      byLeader: (items) => {
        looked.push(items as unknown as readonly EncodedBatch[]);
        return Promise.resolve({ led: new Map([[1, [...items]]]), leaderless: [] });
      },
      send: async <T>() => {
        const names = looked.shift()!.map(({ partition, bytes }) => `${partition}:${bytes.toString()}`);
        requests.push(names);
        return (await answer(names, requests.length)).map((of) => ({ topic: 't', ...of })) as T;
      },
      tryRefresh: (topics) => {
        refreshed.push(...topics);
        return Promise.resolve(true);
      },
    },
    lane: undefined as unknown as Lane,
    transactionalId: 'id',
    apiVersion: 12,
  };
  return { requests, refreshed, sender };
}

const batch = (partition: number, text: string): EncodedBatch => ({
  topic: 't',
  partition,
  records: 1,
  bytes: Buffer.from(text),
});
const taken = (partition: number, baseOffset: number) => ({ partition, error: 0, baseOffset });
const failed = (partition: number, error: number) => ({ partition, error, baseOffset: -1 });
const pipelineTo = (sender: PipelineSender, remainingMs = () => 5_000) =>
  new ProducePipeline(sender, remainingMs, (cause) => new Error('time is over', { cause }));

async function sendAll(pipeline: ProducePipeline, ...rounds: (readonly EncodedBatch[])[]): Promise<void> {
  const landings: Promise<void>[] = [];
  for (const round of rounds) landings.push((await pipeline.send(round)).landed);
  await Promise.all(landings);
}

describe('produce pipeline', () => {
  it('S78 sends a partition again that the answer leaves out, and is not done before it is in', async () => {
    const { requests, refreshed, sender } = broker((_, n) =>
      n === 1 ? [taken(0, 10)] : n === 2 ? [] : [taken(1, 20)],
    );
    const pipeline = pipelineTo(sender);
    await sendAll(pipeline, [batch(0, 'a'), batch(1, 'b')]);
    // The same bytes: the broker knows a repetition by their sequence.
    expect(requests).toEqual([['0:a', '1:b'], ['1:b'], ['1:b']]);
    expect(refreshed).toEqual(['t', 't']);
    expect(pipeline.appended).toEqual([
      { topic: 't', partition: 0, next: 11 },
      { topic: 't', partition: 1, next: 21 },
    ]);
  });

  it('S78 fails, and what was sent after it, when a partition stays left out until time is over', async () => {
    const { sender } = broker(() => [taken(0, 10)]);
    const pipeline = pipelineTo(sender, () => 0);
    await expect(sendAll(pipeline, [batch(0, 'a'), batch(1, 'b')])).rejects.toThrow('time is over');
    await expect(sendAll(pipeline, [batch(0, 'c')])).rejects.toThrow('time is over');
  });

  it('uses the bytes of a batch again only when it is in the log', async () => {
    const free: Buffer[] = [];
    const { requests, sender } = broker((_, n) => {
      free.push(sender.wire.buffers.take(100));
      return n === 1 ? [] : [taken(0, 10)];
    });
    const { buffers } = sender.wire;
    const buffer = buffers.take(100);
    const bytes = buffer.subarray(0, buffer.write('a'));
    await sendAll(pipelineTo(sender), [{ topic: 't', partition: 0, records: 1, bytes, buffer }]);
    expect(requests).toEqual([['0:a'], ['0:a']]);
    expect(free).toHaveLength(2);
    expect(free.includes(buffer)).toBe(false);
    expect(buffers.take(100)).toBe(buffer);
  });

  it('sends the first batch of a partition alone and at most five after it', async () => {
    let answerAll!: () => void;
    const gate = new Promise<void>((resolve) => (answerAll = resolve));
    let offset = 0;
    const { requests, sender } = broker(async (_, n) => {
      if (n > 1) await gate;
      return [taken(0, offset++)];
    });
    const pipeline = pipelineTo(sender);
    const sent = sendAll(pipeline, ...['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].map((text) => [batch(0, text)]));
    await new Promise((resolve) => setImmediate(resolve));
    expect(requests.flat()).toEqual(['0:a', '0:b', '0:c', '0:d', '0:e', '0:f']);
    answerAll();
    await sent;
    expect(requests.flat()).toHaveLength(8);
    expect(pipeline.appended).toEqual([{ topic: 't', partition: 0, next: 8 }]);
  });

  it('repeats a lost batch before those that overtook it, which the broker refused for their order', async () => {
    const { requests, sender } = broker(([name], n) => {
      if (n === 2) return [failed(0, 6)]; // moved: b is not taken
      if (n === 3 || n === 4) return [failed(0, 45)]; // so c and d are out of order
      return [taken(0, 'abcd'.indexOf(name!.at(-1)!))];
    });
    const pipeline = pipelineTo(sender);
    await sendAll(pipeline, [batch(0, 'a')], [batch(0, 'b')], [batch(0, 'c')], [batch(0, 'd')]);
    expect(requests.flat()).toEqual(['0:a', '0:b', '0:c', '0:d', '0:b', '0:c', '0:d']);
    expect(pipeline.appended).toEqual([{ topic: 't', partition: 0, next: 4 }]);
  });

  it('does not repeat a batch that is out of order although nothing before it is missing', async () => {
    const { requests, sender } = broker(() => [failed(0, 45)]);
    await expect(sendAll(pipelineTo(sender), [batch(0, 'a')])).rejects.toMatchObject({ code: 'KAFKA_REFUSED' });
    expect(requests).toHaveLength(1);
  });

  it('S55 sends again within 50 ms while a transaction of the same id is ending, and looks for no other leader', async () => {
    const sentAt: number[] = [];
    const { refreshed, sender } = broker(() => {
      sentAt.push(performance.now());
      return sentAt.length <= 10 ? [failed(0, CONCURRENT_TRANSACTIONS)] : [taken(0, 0)];
    });
    await sendAll(pipelineTo(sender), [batch(0, 'a')]);
    expect(sentAt).toHaveLength(11);
    expect(medianGap(sentAt)).toBeLessThan(50);
    expect(refreshed).toEqual([]);
  });
});
