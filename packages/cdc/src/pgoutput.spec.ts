import { describe, expect, it } from '@jest/globals';
import { CaptureError } from './cdc.errors.js';
import { decodeRare } from './pgoutput.js';
import { cstring, u16, u32, u64 } from './pgoutput.testing.js';

const message = (tag: string, ...parts: Buffer[]) => Buffer.concat([Buffer.from(tag), ...parts]);
const N = Buffer.from('N');

const samples = {
  origin: message('O', u64(1n), cstring('o')),
  relation: message(
    'R',
    u32(9),
    cstring('public'),
    cstring('t'),
    Buffer.from('d'),
    u16(1),
    Buffer.from([1]),
    cstring('id'),
    u32(23),
    u32(0),
  ),
  type: message('Y', u32(9), cstring('public'), cstring('mood')),
  truncate: message('T', u32(2), Buffer.from([1]), u32(9), u32(10)),
  message: message('M', Buffer.from([1]), u64(5n), cstring('headwater'), u32(2), Buffer.from('{}')),
};

describe('decodeRare', () => {
  it('decodes every message of protocol version 1 that is no row, begin or commit', () => {
    expect(decodeRare(samples.relation, '0/0')).toEqual({
      type: 'relation',
      oid: 9,
      schema: 'public',
      name: 't',
      replicaIdentity: 'd',
      columns: [{ name: 'id', typeOid: 23, identity: true }],
    });
    expect(decodeRare(samples.truncate, '0/0')).toEqual({ type: 'truncate', relations: [9, 10], flags: 1 });
    expect(decodeRare(samples.message, '0/0')).toMatchObject({
      type: 'message',
      transactional: true,
      prefix: 'headwater',
    });
  });

  it('C90 refuses truncation at every byte, naming message type and LSN', () => {
    for (const bytes of Object.values(samples)) {
      for (let end = 0; end < bytes.length; end++) {
        const damaged = () => decodeRare(bytes.subarray(0, end), '1/2');
        expect(damaged).toThrow(CaptureError);
        expect(damaged).toThrow(
          new RegExp(`CDC_PROTOCOL: message of type "${end === 0 ? 'none' : String.fromCharCode(bytes[0]!)}" at 1/2`),
        );
      }
    }
  });

  it('C90 refuses bytes too many, unknown types and wrong lengths', () => {
    for (const bytes of Object.values(samples))
      expect(() => decodeRare(Buffer.concat([bytes, N]), '1/2')).toThrow('CDC_PROTOCOL');
    const known = new Set(Object.values(samples).map((bytes) => bytes[0]));
    for (let tag = 0; tag < 256; tag++) {
      if (!known.has(tag)) expect(() => decodeRare(Buffer.from([tag, 0, 0]), '1/2')).toThrow('CDC_PROTOCOL');
    }
    const long = Buffer.from(samples.message);
    long.writeUInt32BE(0xffffffff, samples.message.length - 6);
    expect(() => decodeRare(long, '1/2')).toThrow('CDC_PROTOCOL');
  });

  it('C90 never throws anything but CDC_PROTOCOL on changed bytes', () => {
    for (const bytes of Object.values(samples)) {
      for (let at = 0; at < bytes.length; at++) {
        for (let flip = 1; flip < 256; flip++) {
          const damaged = Buffer.from(bytes);
          damaged[at]! ^= flip;
          try {
            decodeRare(damaged, '1/2');
          } catch (error) {
            if (!(error instanceof CaptureError)) throw error;
          }
        }
      }
    }
  });
});
