import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import { Frames } from './frames.js';

const SEED = Number(process.env['HEADWATER_SEED'] ?? 11);

describe('Frames', () => {
  it(`cuts the same frames wherever the bytes are cut, and keeps nothing of the memory they came in (seed ${SEED})`, () => {
    const random = seededRandom(SEED).below;
    const sent = [4, 5, 4_096, 70_000, 4, 200_000, 8].map((size, n) => frame(size, n));
    const stream = Buffer.concat(sent);
    for (const most of [1, 3, 7, 5_000, 65_536, stream.length]) {
      const got: Buffer[] = [];
      const frames = new Frames((one) => got.push(one));
      for (let at = 0; at < stream.length;) {
        const chunk = Buffer.from(stream.subarray(at, at + 1 + random(most)));
        frames.push(chunk);
        at += chunk.length;
        chunk.fill(0xff);
      }
      expect(got.map((one) => one.equals(sent[got.indexOf(one)]!))).toEqual(sent.map(() => true));
    }
  });

  it('gives a frame as soon as its last byte is there', () => {
    const got: Buffer[] = [];
    const frames = new Frames((one) => got.push(one));
    const [first, second] = [frame(10, 1), frame(20, 2)];
    frames.push(first.subarray(0, 13));
    expect(got).toEqual([]);
    frames.push(Buffer.concat([first.subarray(13), second.subarray(0, 2)]));
    expect(got).toEqual([first]);
    frames.push(second.subarray(2));
    expect(got).toEqual([first, second]);
  });

  it.each([
    ['a size that has no room for a correlation id', Buffer.from([0, 0, 0, 3])],
    ['a negative size', Buffer.from([255, 255, 255, 255])],
    ['an answer of HTTP', Buffer.from('HTTP/1.1 400 Bad Request')],
    ['an alert of TLS', Buffer.from([0x15, 3, 3, 0, 2, 2, 0x46])],
  ])('refuses %s', (_, bytes) => {
    const frames = new Frames(() => undefined);
    expect(() => frames.push(bytes)).toThrow(/no Kafka broker listens there, it wants TLS/);
  });
});

function frame(size: number, fill: number): Buffer {
  const bytes = Buffer.alloc(4 + size, fill);
  bytes.writeInt32BE(size, 0);
  return bytes;
}
