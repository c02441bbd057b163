import { expect, it } from '@jest/globals';
import { HeadwaterError } from '@headwater/core';
import { memoryLog } from '@headwater/testing';
import { resolveOptions } from '../capture.options.js';
import { diagnoseTopics, examineTopics } from './examine-topics.js';
import type { LogFacts } from './examine-topics.js';

const GOOD: LogFacts = {
  differences: [],
  foreign: [{ topic: 'a', exists: true, policy: 'compact' }],
  endsByEpoch: true,
};
const wrong = {
  topic: 'p',
  setting: 'cleanup.policy',
  wanted: 'compact',
  found: 'delete',
  remedy: 'applyTopics() alters it',
};

it.each<[string, Partial<LogFacts>, readonly (readonly [string, string, RegExp])[]]>([
  ['nothing', {}, []],
  ['a topic that is made at the start', { differences: [{ ...wrong, setting: 'topic' }] }, []],
  ['a policy', { differences: [wrong] }, [['fault', 'p', /headwater topics apply --config FILE/]]],
  ['brokers before 4.0', { endsByEpoch: false }, [['advice', 'transaction.version', /kafka-features.sh .*upgrade/]]],
  [
    'a missing topic of others',
    { foreign: [{ topic: 'a', exists: false, policy: 'compact' }] },
    [['fault', 'a', /Make it/]],
  ],
  [
    'a topic that forgets',
    { foreign: [{ topic: 'a', exists: true, policy: 'delete' }] },
    [['warning', 'a', /cleanup.policy=compact/]],
  ],
  [
    'a topic that forgets what is old',
    { foreign: [{ topic: 'a', exists: true, policy: 'compact,delete' }] },
    [['warning', 'a', /--entity-name a /]],
  ],
])('finds %s', (_, facts, wanted) => {
  const findings = diagnoseTopics({ ...GOOD, ...facts });
  expect(findings.map(({ severity, about, fix }) => [severity, about, fix])).toEqual(
    wanted.map(([severity, about, fix]) => [severity, about, expect.stringMatching(fix)]),
  );
});

it('tells brokers that are too old from brokers that do not answer', async () => {
  const { log } = memoryLog().client();
  const examined = (error: Error) =>
    examineTopics(
      resolveOptions({
        name: 'x',
        connectionString: '',
        tables: [],
        snapshot: 'never',
        outbox: false,
        log: { ...log, admin: { ...log.admin, abilities: () => Promise.reject(error) } },
      }),
    );
  expect(
    await examined(new HeadwaterError('KAFKA_TOO_OLD', 'the broker lacks JoinGroup v9. Upgrade it.')),
  ).toMatchObject([
    { severity: 'fault', about: 'kafka version', message: expect.stringContaining('JoinGroup v9. Upgrade') },
  ]);
  expect(await examined(new Error('gone'))).toMatchObject([
    { about: 'kafka', fix: expect.stringContaining('start the brokers') },
  ]);
});
