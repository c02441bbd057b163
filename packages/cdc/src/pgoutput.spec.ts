import { describe, expect, it } from '@jest/globals';
import { AckPolicy } from './ack-policy.js';
import { CaptureError } from './cdc.errors.js';
import { formatLsn, parseLsn } from './lsn.js';
import { decodePgoutput } from './pgoutput.js';

const u16 = (n: number) => Buffer.from([n >> 8, n & 255]);
const u32 = (n: number) => {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(n);
  return b;
};
const u64 = (n: bigint) => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64BE(n);
  return b;
};
const text = (s: string) => Buffer.from(`${s}\0`);
const value = (s: string) => Buffer.concat([Buffer.from('t'), u32(Buffer.byteLength(s)), Buffer.from(s)]);
const message = (tag: string, ...parts: Buffer[]) => Buffer.concat([Buffer.from(tag), ...parts]);
const row = Buffer.concat([u16(3), value('1'), Buffer.from('n'), Buffer.from('u')]);
const N = Buffer.from('N');

const samples = {
  begin: message('B', u64(0x16_b374d848n), u64(0n), u32(7)),
  commit: message('C', Buffer.from([0]), u64(1n), u64(2n), u64(3n)),
  origin: message('O', u64(1n), text('o')),
  relation: message(
    'R',
    u32(9),
    text('public'),
    text('t'),
    Buffer.from('d'),
    u16(1),
    Buffer.from([1]),
    text('id'),
    u32(23),
    u32(0),
  ),
  type: message('Y', u32(9), text('public'), text('mood')),
  insert: message('I', u32(9), N, row),
  update: message('U', u32(9), N, row),
  updateOld: message('U', u32(9), Buffer.from('O'), row, N, row),
  delete: message('D', u32(9), Buffer.from('K'), row),
  truncate: message('T', u32(2), Buffer.from([1]), u32(9), u32(10)),
  message: message('M', Buffer.from([1]), u64(5n), text('headwater'), u32(2), Buffer.from('{}')),
};

describe('decodePgoutput', () => {
  it('decodes every message of protocol version 1', () => {
    expect(decodePgoutput(samples.begin, '0/0')).toEqual({
      type: 'begin',
      finalLsn: parseLsn('16/B374D848'),
      commitMicros: 946_684_800_000_000n,
      xid: 7,
    });
    expect(decodePgoutput(samples.commit, '0/0')).toMatchObject({ type: 'commit', commitLsn: 1n, endLsn: 2n });
    expect(decodePgoutput(samples.relation, '0/0')).toEqual({
      type: 'relation',
      oid: 9,
      schema: 'public',
      name: 't',
      replicaIdentity: 'd',
      columns: [{ name: 'id', typeOid: 23, identity: true }],
    });
    expect(decodePgoutput(samples.insert, '0/0')).toEqual({ type: 'insert', relation: 9, row: ['1', null, undefined] });
    expect(decodePgoutput(samples.update, '0/0')).toMatchObject({ type: 'update', old: undefined });
    expect(decodePgoutput(samples.updateOld, '0/0')).toMatchObject({
      old: { kind: 'full', tuple: ['1', null, undefined] },
    });
    expect(decodePgoutput(samples.delete, '0/0')).toMatchObject({ type: 'delete', old: { kind: 'key' } });
    expect(decodePgoutput(samples.truncate, '0/0')).toEqual({ type: 'truncate', relations: [9, 10], flags: 1 });
    expect(decodePgoutput(samples.message, '0/0')).toMatchObject({
      type: 'message',
      transactional: true,
      prefix: 'headwater',
    });
  });

  it('C90 refuses truncation at every byte, naming message type and LSN', () => {
    for (const bytes of Object.values(samples)) {
      for (let end = 0; end < bytes.length; end++) {
        const damaged = () => decodePgoutput(bytes.subarray(0, end), '1/2');
        expect(damaged).toThrow(CaptureError);
        expect(damaged).toThrow(
          new RegExp(`CDC_PROTOCOL: message of type "${end === 0 ? 'none' : String.fromCharCode(bytes[0]!)}" at 1/2`),
        );
      }
    }
  });

  it('C90 refuses bytes too many, unknown types and wrong lengths', () => {
    for (const bytes of Object.values(samples))
      expect(() => decodePgoutput(Buffer.concat([bytes, N]), '1/2')).toThrow('CDC_PROTOCOL');
    const known = new Set(Object.values(samples).map((bytes) => bytes[0]));
    for (let tag = 0; tag < 256; tag++) {
      if (!known.has(tag)) expect(() => decodePgoutput(Buffer.from([tag, 0, 0]), '1/2')).toThrow('CDC_PROTOCOL');
    }
    const long = Buffer.from(samples.insert);
    long.writeUInt32BE(0xffffffff, 9);
    expect(() => decodePgoutput(long, '1/2')).toThrow('CDC_PROTOCOL');
  });

  it('C90 never throws anything but CDC_PROTOCOL on changed bytes', () => {
    for (const bytes of Object.values(samples)) {
      for (let at = 0; at < bytes.length; at++) {
        for (let flip = 1; flip < 256; flip++) {
          const damaged = Buffer.from(bytes);
          damaged[at]! ^= flip;
          try {
            decodePgoutput(damaged, '1/2');
          } catch (error) {
            if (!(error instanceof CaptureError)) throw error;
          }
        }
      }
    }
  });
});

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
