import { describe, expect, it } from '@jest/globals';
import { AckPolicy } from './ack-policy.js';
import { formatLsn, parseLsn } from './lsn.js';

describe('AckPolicy', () => {
  it('C85 refuses an LSN above what was received, and the slot stays', () => {
    const ack = new AckPolicy(parseLsn('0/100'));
    ack.received(parseLsn('0/200'));
    expect(() => ack.published(parseLsn('FFFF/0'))).toThrow('CDC_ACK_AHEAD');
    expect(formatLsn(ack.lsn)).toBe('0/100');
    ack.published(parseLsn('0/180'));
    ack.covered(parseLsn('0/200'));
    expect(formatLsn(ack.lsn)).toBe('0/180');
  });

  it('C85 acknowledges a resumed position only as far as this connection has received', () => {
    const ack = new AckPolicy(parseLsn('0/100'));
    ack.resume(parseLsn('0/300'));
    ack.covered(parseLsn('0/500'));
    expect(formatLsn(ack.lsn)).toBe('0/100');
    ack.received(parseLsn('0/400'));
    expect(formatLsn(ack.lsn)).toBe('0/300');
  });

  it('C95 acknowledges what is published only as far as the publication was seen after it was received', () => {
    const ack = new AckPolicy(parseLsn('0/100'));
    expect(ack.waits).toBe(false);
    ack.received(parseLsn('0/200'));
    expect(ack.waits).toBe(false);
    ack.published(parseLsn('0/200'));
    const look = ack.coverable;
    ack.received(parseLsn('0/300'));
    ack.published(parseLsn('0/300'));
    expect([formatLsn(ack.lsn), ack.waits]).toEqual(['0/100', true]);
    ack.covered(look);
    expect([formatLsn(ack.lsn), ack.waits]).toEqual(['0/200', true]);
    ack.covered(ack.coverable);
    expect([formatLsn(ack.lsn), ack.waits]).toEqual(['0/300', false]);
  });
});
