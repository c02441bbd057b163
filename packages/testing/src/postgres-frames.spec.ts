import { expect, it } from '@jest/globals';
import { postgresSplitter, statementOf } from './postgres-frames.js';

function message(type: string, body: string): Buffer {
  const head = Buffer.alloc(type.length + 4);
  head.write(type, 0, 'latin1');
  head.writeUInt32BE(4 + body.length, type.length);
  return Buffer.concat([head, Buffer.from(body, 'latin1')]);
}

const SSL_REQUEST = Buffer.from('0000000804d2162f', 'hex');
const PARSE = message('P', 'name\0SELECT $1\0\0\0');

it('cuts messages alike at every possible chunk size, the startup message first', () => {
  const frames = [message('', '\0\x03\0\0user\0'), message('Q', 'COMMIT\0'), PARSE, message('X', '')];
  const stream = Buffer.concat([SSL_REQUEST, ...frames]);
  for (let size = 1; size <= stream.length; size++) {
    const seen: (readonly [string, Buffer])[] = [];
    let asked = 0;
    const push = postgresSplitter({
      startup: true,
      onFrame: (frame, type) => seen.push([type, Buffer.from(frame)]),
      onEncryptionRequest: () => asked++,
    });
    for (let at = 0; at < stream.length; at += size) push(stream.subarray(at, at + size));
    expect(asked).toBe(1);
    expect(seen).toEqual(['', 'Q', 'P', 'X'].map((type, i) => [type, frames[i]]));
  }
});

it('reads the statement of a simple query and of a parse', () => {
  expect(statementOf(message('Q', 'COMMIT\0'), 'Q')).toBe('COMMIT');
  expect(statementOf(PARSE, 'P')).toBe('SELECT $1');
  expect(statementOf(message('B', 'x'), 'B')).toBeUndefined();
});
