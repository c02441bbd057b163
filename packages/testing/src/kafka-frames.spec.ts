import { expect, it } from '@jest/globals';
import { frameSplitter, readRequest } from './kafka-frames.js';

function requestFrame(apiKey: number, clientId: string | null, body = ''): Buffer {
  const id = Buffer.from(clientId ?? '');
  const header = Buffer.alloc(14);
  header.writeInt32BE(10 + id.length + body.length, 0);
  header.writeInt16BE(apiKey, 4);
  header.writeInt16BE(7, 6);
  header.writeInt32BE(42, 8);
  header.writeInt16BE(clientId === null ? -1 : id.length, 12);
  return Buffer.concat([header, id, Buffer.from(body)]);
}

it('cuts frames alike at every possible chunk size', () => {
  const frames = [requestFrame(0, 'a', 'x'.repeat(30)), requestFrame(26, null), requestFrame(3, 'öß')];
  const stream = Buffer.concat(frames);
  for (let size = 1; size <= stream.length; size++) {
    const seen: Buffer[] = [];
    const push = frameSplitter((frame) => seen.push(Buffer.from(frame)));
    for (let at = 0; at < stream.length; at += size) push(stream.subarray(at, at + size));
    expect(seen).toEqual(frames);
  }
});

it('reads api, version, correlation id, client id and length of a request', () => {
  expect(readRequest(requestFrame(26, 'writer-0'))).toEqual({
    apiKey: 26,
    apiName: 'EndTxn',
    version: 7,
    correlationId: 42,
    clientId: 'writer-0',
    bytes: requestFrame(26, 'writer-0').length,
  });
  expect(readRequest(requestFrame(999, null))).toMatchObject({ apiName: '999', clientId: '' });
});
