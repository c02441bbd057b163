import { describe, expect, it } from '@jest/globals';
import { seededRandom } from '@headwater/testing';
import type { Random } from '@headwater/testing';
import { Pace } from './pace.js';
import { begin, keepalive, xlogData } from './pgoutput.testing.js';
import { WalFrames } from './wal-frames.js';

const other = (type: string, body: string) => {
  const frame = Buffer.alloc(5 + body.length);
  frame.write(type);
  frame.writeUInt32BE(4 + body.length, 1);
  frame.write(body, 5);
  return frame;
};

function randomFrame(random: Random): { readonly seen: string; readonly frame: Buffer } {
  const lsn = BigInt(random.below(2 ** 32)) << 20n;
  switch (random.below(6)) {
    case 0: {
      const reply = random.chance(0.5);
      return { seen: `keepalive ${lsn} ${reply}`, frame: keepalive(lsn, reply) };
    }
    case 1: {
      const frame = other('C', 'COPY 0');
      return { seen: `other ${frame.toString('hex')}`, frame };
    }
    default: {
      const size = random.chance(0.02) ? 400_000 : random.below(600);
      const message = Buffer.alloc(size, random.below(256));
      return { seen: `message ${lsn} ${message.toString('hex')}`, frame: xlogData(message, lsn) };
    }
  }
}

function read(frames: WalFrames, chunks: readonly Buffer[]): string[] {
  const seen: string[] = [];
  for (const chunk of chunks) {
    frames.feed(chunk);
    for (let kind = frames.next(); kind !== undefined; kind = frames.next()) {
      const text = frames.bytes.toString('hex', frames.start, frames.end);
      if (kind === 'keepalive') seen.push(`keepalive ${frames.lsn} ${frames.replyRequested}`);
      else seen.push(kind === 'message' ? `message ${frames.lsn} ${text}` : `other ${text}`);
    }
    // What the frames hold of a chunk must be theirs: the socket's memory is another's by now.
    chunk.fill(0xee);
  }
  return seen;
}

describe('WalFrames', () => {
  it('cuts the same frames out of the bytes wherever the socket cuts them', () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seededRandom(seed);
    for (let round = 0; round < 60; round++) {
      const sent = Array.from({ length: 60 }, () => randomFrame(random));
      const bytes = Buffer.concat(sent.map(({ frame }) => frame));
      const most = random.pick([1, 7, 64, 1_500, 65_536]);
      const chunks: Buffer[] = [];
      for (let at = 0; at < bytes.length;) {
        const size = most === 1 && bytes.length > 40_000 ? 1_000 : 1 + random.below(most);
        chunks.push(Buffer.from(bytes.subarray(at, at + size)));
        at += size;
      }
      const seen = read(new WalFrames(), chunks);
      if (seen.join() !== sent.map((of) => of.seen).join()) throw new Error(`seed ${seed}, round ${round}`);
    }
  });

  it('C90 refuses lengths and kinds that no server sends, without waiting for what they claim', () => {
    for (const length of [0, 3, 0x4000_0001, 0xffff_ffff]) {
      const frame = xlogData(begin(1n, 1n, 1));
      frame.writeUInt32BE(length, 1);
      expect(() => read(new WalFrames(), [frame])).toThrow(/^CDC_PROTOCOL/);
      expect(() => read(new WalFrames(), [frame.subarray(0, 2), frame.subarray(2, 5)])).toThrow(/^CDC_PROTOCOL/);
    }
    const odd = xlogData(begin(1n, 1n, 1));
    odd[5] = 0x78;
    expect(() => read(new WalFrames(), [odd])).toThrow(/^CDC_PROTOCOL/);
    expect(() => read(new WalFrames(), [other('d', 'k123')])).toThrow(/^CDC_PROTOCOL/);
    expect(() => read(new WalFrames(), [other('d', '')])).toThrow(/^CDC_PROTOCOL/);
  });
});

describe('Pace', () => {
  /** How many of the reads were followed by a rest. */
  const rests = (reads: readonly (readonly [bytes: number, atMs: number])[]) => {
    const pace = new Pace();
    return reads.filter(([bytes, atMs]) => pace.afterRead(bytes, atMs) > 0).length;
  };

  it('rests while a backlog is read in small pieces, from the first window on', () => {
    const reads = Array.from({ length: 1_000 }, (_, i) => [1_300, i * 0.03] as const);
    expect(rests(reads)).toBeGreaterThan(950);
  });

  it('goes on resting at the reads that resting brings', () => {
    const reads = Array.from({ length: 100 }, (_, i) => [65_536, i * 1.3] as const);
    expect(rests(reads)).toBe(100);
  });

  it('never rests a line of 1,000 transactions/s of 4 rows, nor one that was idle', () => {
    const steady = Array.from({ length: 5_000 }, (_, i) => [1_500, i] as const);
    expect(rests(steady)).toBe(0);
    expect(rests([...Array.from({ length: 200 }, (_, i) => [1_300, i * 0.03] as const), [400, 5_000]])).toBe(
      rests(Array.from({ length: 200 }, (_, i) => [1_300, i * 0.03] as const)),
    );
  });
});
