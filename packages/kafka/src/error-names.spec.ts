import { describe, expect, it } from '@jest/globals';
import { refused } from './kafka.errors.js';

describe('errors of the broker', () => {
  it.each([
    [17, 'INVALID_TOPIC_EXCEPTION', /Choose a name/],
    [32, 'INVALID_TIMESTAMP', /timestamp that its topic takes/],
    [44, 'POLICY_VIOLATION', /policy/],
    [76, 'UNSUPPORTED_COMPRESSION_TYPE', /another compression/],
    [87, 'INVALID_RECORD', /Give the record a key/],
    [111, 'UNRELEASED_INSTANCE_ID', /broker’s log/],
  ])('are told by name and with the next step: %i', (error, name, step) => {
    const told = refused('Produce', error, { topic: 't' });
    expect(told.message).toContain(`Produce topic=t was refused: ${name} (${error}). `);
    expect(told.message).toMatch(step);
    expect(told).toMatchObject({ retryable: false, facts: { errorName: name } });
  });

  it('say that a transaction which the broker wants aborted may be run again', () => {
    expect(refused('Produce', 120)).toMatchObject({ retryable: true, facts: { errorName: 'TRANSACTION_ABORTABLE' } });
  });
});
