import { describe, expect, it } from '@jest/globals';
import { anomalies, skipped, type Operation, type Read } from './history.testing.js';

const operation = (outcome: Operation['outcome'], values: string[], askedAt = 0): Operation => ({
  outcome,
  values,
  askedAt,
});
const read = (value: string, place: string, at = 10): Read => ({ value, place, at });

describe('anomalies', () => {
  it('are none in a sound history', () => {
    const operations = [
      operation('committed', ['a', 'b']),
      operation('failed', ['c']),
      operation('unknown', ['d', 'e']),
      operation('unknown', ['f', 'g']),
    ];
    const reads = [
      read('a', 't/0/0'),
      read('b', 't/1/0'),
      read('d', 't/0/2'),
      read('e', 't/1/2'),
      read('a', 't/0/0', 20),
    ];
    expect(anomalies(operations, reads)).toEqual([]);
  });

  it.each([
    ['aborted read', [operation('failed', ['a'])], [read('a', 't/0/0')]],
    ['lost write', [operation('committed', ['a', 'b'])], [read('a', 't/0/0')]],
    ['intermediate read', [operation('unknown', ['a', 'b'])], [read('a', 't/0/0')]],
    ['duplicate', [operation('committed', ['a'])], [read('a', 't/0/0'), read('a', 't/0/5')]],
    [
      'inconsistent offset',
      [operation('committed', ['a']), operation('committed', ['b'])],
      [read('a', 't/0/0'), read('b', 't/0/0')],
    ],
    ['precommitted read', [operation('committed', ['a'], 50)], [read('a', 't/0/0', 40)]],
    ['never written', [], [read('a', 't/0/0')]],
  ] as const)('name a history with: %s', (name, operations, reads) => {
    expect(anomalies(operations, reads)).toEqual([expect.stringContaining(name)]);
  });

  it('name a poll that skipped', () => {
    expect(skipped('reader', new Map([['t/0', [0, 2]]]), new Map([['t/0', [0, 1, 2]]]))).toEqual([
      expect.stringContaining('2 where 1 is next'),
    ]);
  });
});
