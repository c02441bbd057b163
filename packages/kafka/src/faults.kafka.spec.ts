import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { GroupOffsets, Log, LogWriter, OutRecord } from '@headwater/core';
import type { Fault } from '@headwater/testing';
import { committedRecords, lossyNetwork, newTopic, testLog, texts, unique } from './broker.testing.js';

const LOSSES: readonly Fault[] = [
  { at: 'request', act: 'drop' },
  { at: 'request', act: 'reset' },
  { at: 'response', act: 'drop' },
  { at: 'response', act: 'reset' },
];

/** How long what never gets an answer is tried. */
const BRIEF = { transactionTimeoutMs: 4_000 };

describe('writer behind a faulty network', () => {
  let log: Log;
  let network: Awaited<ReturnType<typeof lossyNetwork>>;
  /** By client id: what meets which fault, and how often still. */
  const rules = new Map<string, { readonly apiName: string; readonly fault: Fault; left: number; struck: number }>();
  beforeAll(async () => {
    log = testLog();
    network = await lossyNetwork();
    network.proxy.decide = ({ clientId, apiName }) => {
      const rule = rules.get(clientId);
      if (rule === undefined || rule.apiName !== apiName || rule.left <= 0) return undefined;
      rule.left--;
      rule.struck++;
      return rule.fault;
    };
  });
  afterAll(async () => {
    await network.close();
    await log.close();
  });

  const one = (topic: string, value: string): OutRecord[] => [
    { topic, partition: 0, key: null, value: Buffer.from(value) },
  ];

  interface Case {
    readonly topic: string;
    readonly writer: LogWriter;
    readonly offsets: GroupOffsets;
    /** The next `times` requests meet the fault. */
    readonly strike: (apiName: string, fault: Fault, times: number) => { readonly struck: number };
    readonly calm: () => void;
    readonly committed: () => Promise<{ readonly records: (string | null)[]; readonly next: number }>;
  }

  /** A fenced writer with a client id, a topic and a group of its own. */
  async function newCase({ transactionTimeoutMs = 30_000 } = {}): Promise<Case> {
    const clientId = unique('client');
    const topic = await newTopic(log);
    const writer = network.log({ clientId }).writer({ transactionalId: unique('writer'), transactionTimeoutMs });
    await writer.fence();
    const membership = { groupId: unique('group'), memberId: '', generation: -1 };
    return {
      topic,
      writer,
      offsets: { membership, offsets: [{ topic, partition: 0, next: 5 }] },
      strike(apiName, fault, times) {
        const rule = { apiName, fault, left: times, struck: 0 };
        rules.set(clientId, rule);
        return rule;
      },
      calm: () => void rules.delete(clientId),
      async committed() {
        const records = texts(await committedRecords(log, topic));
        const [offset] = await log.admin.committedOffsets(membership.groupId, [{ topic, partition: 0 }]);
        return { records, next: offset!.next };
      },
    };
  }

  /** All pairs at one time: a lost frame costs a time-out. */
  function each(
    apiNames: readonly string[],
    run: (apiName: string, fault: Fault) => Promise<unknown>,
  ): Promise<unknown> {
    return Promise.all(apiNames.flatMap((apiName) => LOSSES.map((fault) => run(apiName, fault))));
  }

  it('S39 commits once, in order, whichever request or answer of two in a row is lost', async () => {
    await each(['Produce', 'TxnOffsetCommit', 'EndTxn', 'FindCoordinator'], async (apiName, fault) => {
      const { topic, writer, offsets, strike, committed } = await newCase();
      const rule = strike(apiName, fault, 2);
      const transaction = writer.begin();
      await transaction.append(one(topic, 'a'));
      await transaction.append(one(topic, 'b'));
      const first = await transaction.commit(offsets);
      const next = { ...offsets, offsets: [{ topic, partition: 0, next: 6 }] };
      const second = await writer.transact(one(topic, 'c'), next);
      expect({ apiName, fault, first, second }).toMatchObject({
        first: { outcome: 'committed', appended: [{ next: 2 }] },
        second: { outcome: 'committed' },
      });
      expect(rule.struck).toBeGreaterThan(0);
      expect(await committed()).toEqual({ records: ['a', 'b', 'c'], next: 6 });
    });
  });

  it('aborts without a trace, whichever request or answer is lost, and is ready for the next', async () => {
    await each(['Produce', 'EndTxn'], async (apiName, fault) => {
      const { topic, writer, strike, committed } = await newCase();
      const rule = strike(apiName, fault, 1);
      const transaction = writer.begin();
      await transaction.append(one(topic, 'dropped'));
      const aborted = await transaction.abort('reason');
      expect({ apiName, fault, aborted, struck: rule.struck }).toMatchObject({
        aborted: { outcome: 'aborted', cause: 'reason' },
        struck: 1,
      });
      expect(aborted).not.toHaveProperty('fenced');
      expect(await writer.transact(one(topic, 'next'))).toMatchObject({ outcome: 'committed' });
      expect(await committed()).toEqual({ records: ['next'], next: -1 });
    });
  });

  it('aborts when Produce or TxnOffsetCommit never get an answer, and is ready for the next', async () => {
    await each(['Produce', 'TxnOffsetCommit'], async (apiName, fault) => {
      const { topic, writer, offsets, strike, calm, committed } = await newCase(BRIEF);
      strike(apiName, fault, Infinity);
      const outcome = await writer.transact(one(topic, 'dropped'), offsets);
      expect({ apiName, fault, outcome }).toMatchObject({
        outcome: { outcome: 'aborted', cause: { code: 'LOG_TRANSACTION_TIMED_OUT', retryable: true } },
      });
      calm();
      // The broker may have timed it out first.
      if (outcome.outcome === 'aborted' && outcome.fenced === 'writer') await writer.fence();
      expect(await writer.transact(one(topic, 'next'), offsets)).toMatchObject({ outcome: 'committed' });
      expect(await committed()).toEqual({ records: ['next'], next: 5 });
    });
  });

  it('S40 is unknown while no EndTxn answer arrives; after fence() the commit is seen once and the writer goes on', async () => {
    const { topic, writer, offsets, strike, calm, committed } = await newCase(BRIEF);
    strike('EndTxn', { at: 'response', act: 'reset' }, Infinity);
    expect(await writer.transact(one(topic, 'landed'), offsets)).toMatchObject({ outcome: 'unknown' });
    expect(await writer.transact(one(topic, 'refused'))).toMatchObject({ outcome: 'aborted', fenced: 'writer' });
    await writer.fence();
    // The truth: the offsets are there, so the batch is not run again.
    expect(await committed()).toEqual({ records: ['landed'], next: 5 });
    calm();
    expect(await writer.transact(one(topic, 'next'))).toMatchObject({ outcome: 'committed' });
    expect(await committed()).toEqual({ records: ['landed', 'next'], next: 5 });
  });

  it('S41 is unknown while no EndTxn request arrives; after fence() nothing of it is seen and the batch runs again once', async () => {
    const { topic, writer, offsets, strike, calm, committed } = await newCase(BRIEF);
    strike('EndTxn', { at: 'request', act: 'reset' }, Infinity);
    expect(await writer.transact(one(topic, 'batch'), offsets)).toMatchObject({ outcome: 'unknown' });
    await writer.fence();
    expect(await committed()).toEqual({ records: [], next: -1 });
    calm();
    expect(await writer.transact(one(topic, 'batch'), offsets)).toMatchObject({ outcome: 'committed' });
    expect(await committed()).toEqual({ records: ['batch'], next: 5 });
  });

  it('is unknown when an abort gets no answer; after fence() nothing of it is seen', async () => {
    await each(['EndTxn'], async (apiName, fault) => {
      const { topic, writer, strike, calm, committed } = await newCase(BRIEF);
      strike(apiName, fault, Infinity);
      const transaction = writer.begin();
      await transaction.append(one(topic, 'dropped'));
      expect({ fault, outcome: await transaction.abort() }).toMatchObject({ outcome: { outcome: 'unknown' } });
      calm();
      await writer.fence();
      expect(await writer.transact(one(topic, 'next'))).toMatchObject({ outcome: 'committed' });
      expect(await committed()).toEqual({ records: ['next'], next: -1 });
    });
  });

  it('fences whichever InitProducerId is lost, either of the two', async () => {
    await Promise.all(
      LOSSES.flatMap((fault) =>
        [1, 2, 3].map(async (times) => {
          const { topic, writer, strike, committed } = await newCase();
          const rule = strike('InitProducerId', fault, times);
          await writer.fence();
          expect(rule.struck).toBe(times);
          for (const value of ['a', 'b', 'c'])
            expect(await writer.transact(one(topic, value))).toMatchObject({ outcome: 'committed' });
          expect(await committed()).toEqual({ records: ['a', 'b', 'c'], next: -1 });
        }),
      ),
    );
  });

  it('S63 loses and doubles none of 100 appends that were not awaited, whichever Produce is lost', async () => {
    await Promise.all(
      LOSSES.flatMap((fault) =>
        [0, 2, 5].map(async (after) => {
          const { topic, writer, strike, calm, committed } = await newCase();
          const transaction = writer.begin();
          const appends: Promise<void>[] = [];
          for (let n = 0; n < 100; n++) {
            if (n === after) strike('Produce', fault, 1);
            appends.push(transaction.append(one(topic, `${n}`)));
            // In waves: some are on their way while the fault strikes.
            if (n < 10) await appends[n - 3];
          }
          await Promise.all(appends);
          calm();
          expect(await transaction.commit()).toMatchObject({ outcome: 'committed', appended: [{ next: 100 }] });
          expect((await committed()).records).toEqual(Array.from({ length: 100 }, (_, n) => `${n}`));
        }),
      ),
    );
  });
});
