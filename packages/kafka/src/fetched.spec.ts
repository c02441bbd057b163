import { gzipSync } from 'node:zlib';
import { crc32c } from '@node-rs/crc32';
import { describe, expect, it } from '@jest/globals';
import { putVarint, recordBytesAtMost, varintSize, type OutRecord } from '@headwater/core';
import { decodeFetched, recordBatch } from './batch.testing.js';
import { FetchedRecords, readVarint, type AbortedTransaction } from './fetched.js';

const A = 1n;
const B = 2n;

describe('varints', () => {
  it('are read as they are written, up to 2^53, wherever they stand', () => {
    const edges = [0, 1, 63, 64, 127, 128, 8_191, 8_192, 2 ** 27, 2 ** 31 - 1, 2 ** 31, 2 ** 40, 2 ** 52 - 1];
    for (const value of edges.flatMap((edge) => [edge, -edge - 1, edge === 0 ? 0 : -edge])) {
      const target = Buffer.alloc(16, 0xff);
      const end = putVarint(target, 3, value);
      expect(end - 3).toBe(varintSize(value));
      expect(readVarint(target, 3)).toBe(value);
    }
  });

  it.each([0, 1, 2, 3, 9])('are refused past the end of what holds them, after %i bytes', (length) => {
    expect(() => readVarint(Buffer.alloc(length, 0xff), 0)).toThrow(RangeError);
  });

  it('are refused when they never end', () => {
    expect(() => readVarint(Buffer.alloc(30, 0xff), 0)).toThrow(RangeError);
  });
});

describe('record batches', () => {
  it('reads back what it writes', () => {
    const records: OutRecord[] = [
      {
        topic: 't',
        key: Buffer.from('k'),
        value: Buffer.alloc(70_000, 1),
        headers: [
          ['ü', Buffer.from('v')],
          ['n', null],
        ],
        timestamp: 50,
      },
      { topic: 't', key: null, value: null, timestamp: 40 },
      { topic: 't', key: Buffer.alloc(0), value: Buffer.alloc(0) },
    ];
    const { records: read, nextOffset } = decode(0, [at(7, recordBatch(records, producer(A), 60))]);
    expect(nextOffset).toBe(10);
    expect(read).toEqual([
      {
        topic: 't',
        partition: 0,
        offset: 7,
        timestamp: 50,
        key: Buffer.from('k'),
        value: Buffer.alloc(70_000, 1),
        headers: records[0]!.headers,
      },
      { topic: 't', partition: 0, offset: 8, timestamp: 40, key: null, value: null, headers: [] },
      { topic: 't', partition: 0, offset: 9, timestamp: 60, key: Buffer.alloc(0), value: Buffer.alloc(0), headers: [] },
    ]);
  });

  it('never takes a record for smaller than it is', () => {
    const record: OutRecord = {
      topic: 't',
      key: Buffer.from('k'),
      value: Buffer.from('v'),
      headers: [['é'.repeat(40), Buffer.alloc(3)]],
    };
    expect(recordBatch([record], producer(A), 0).length - 61).toBeLessThanOrEqual(recordBytesAtMost(record));
  });
});

describe('the filter of aborted transactions', () => {
  it('S46 leaves out two transactions that aborted in interleaved order, listed by their ends', () => {
    const log = [
      data(0, A, 'A1'),
      data(1, B, 'B1'),
      data(2, A, 'A2'),
      data(3, B, 'B2'),
      abort(4, B),
      data(5, A, 'A3'),
      abort(6, A),
      data(7, B, 'OK'),
      commit(8, B),
    ];
    expect(
      values(
        decode(0, log, [
          { producerId: B, firstOffset: 1 },
          { producerId: A, firstOffset: 0 },
        ]),
      ),
    ).toEqual(['OK']);
  });

  it('S47 leaves out the rest when the fetch begins inside an aborted transaction', () => {
    const log = [data(4, A, 'a', 'b', 'c'), data(7, B, 'OK'), abort(8, A), data(9, A, 'later')];
    expect(values(decode(5, log, [{ producerId: A, firstOffset: 2 }]))).toEqual(['OK', 'later']);
  });

  it('S48 leaves out several aborts of one producer and keeps the commits between them', () => {
    const log = [0, 1, 2, 3, 4].flatMap((n) => [
      data(5 * n, A, `no ${n}`),
      abort(5 * n + 1, A),
      data(5 * n + 2, A, `yes ${n}`),
      data(5 * n + 3, A, `and ${n}`),
      commit(5 * n + 4, A),
    ]);
    const listed = [0, 1, 2, 3, 4].map((n) => ({ producerId: A, firstOffset: 5 * n }));
    expect(values(decode(0, log, listed))).toEqual([0, 1, 2, 3, 4].flatMap((n) => [`yes ${n}`, `and ${n}`]));
  });

  it('S49 takes a data key of four zero bytes for data', () => {
    const zeros = (offset: number, producerId: bigint, value: string) =>
      batch(offset, producerId, [value], { key: Buffer.alloc(4) });
    const log = [zeros(0, A, 'no 1'), zeros(1, B, 'yes'), data(2, A, 'no 2'), abort(3, A), zeros(4, A, 'yes too')];
    expect(values(decode(0, log, [{ producerId: A, firstOffset: 0 }]))).toEqual(['yes', 'yes too']);
  });

  it('S50 shows nothing of a transaction whose abort marker arrives in a later fetch', () => {
    const listed = [{ producerId: A, firstOffset: 0 }];
    const first = decode(0, [data(0, A, 'no'), data(1, A, 'no')], listed);
    expect(first).toMatchObject({ records: [], nextOffset: 2 });
    expect(values(decode(first.nextOffset, [data(2, A, 'no'), abort(3, A), data(4, A, 'OK')], listed))).toEqual(['OK']);
  });

  it('moves past batches that compaction emptied, and waits for the rest of a cut one', () => {
    const emptied = data(0, A, 'gone');
    emptied.writeInt32BE(9, 23); // last offset delta stays
    emptied.writeInt32BE(0, 57);
    expect(decode(0, [sealed(emptied.subarray(0, 61))])).toMatchObject({ records: [], nextOffset: 10 });
    const cut = Buffer.concat([data(10, B, 'whole'), data(11, B, 'cut').subarray(0, 65)]);
    const read = decodeFetched({ topic: 't', partition: 0, from: 10, bytes: cut, aborted: [] });
    expect([values(read), read.nextOffset]).toEqual([['whole'], 11]);
  });

  it('refuses a batch that does not fit its CRC, and a codec it does not have', () => {
    const broken = data(3, A, 'x');
    broken[broken.length - 1]! ^= 1;
    expect(() => decode(0, [broken])).toThrow(
      expect.objectContaining({ code: 'LOG_CORRUPT', facts: { topic: 't', partition: 0, offset: 3 } }),
    );
    expect(() => decode(0, [packed(5, (records) => records)])).toThrow(
      expect.objectContaining({
        code: 'LOG_CODEC_MISSING',
        facts: { codec: 'number 5', topic: 't', partition: 0, offset: 0 },
      }),
    );
    expect(values(decode(0, [packed(1, gzipSync)]))).toEqual(['packed']);
  });

  it('gives what stands before a batch that cannot be read, and then the error, however often it is asked', () => {
    const spoilt = data(12, A, 'spoilt');
    spoilt[spoilt.length - 1]! ^= 1;
    const bytes = Buffer.concat([data(10, A, 'a', 'b'), spoilt, data(13, A, 'behind')]);
    const fetched = new FetchedRecords({ topic: 't', partition: 0, from: 10, bytes, aborted: [] });
    expect(fetched.read().records.map(({ value }) => value!.toString())).toEqual(['a', 'b']);
    for (let n = 0; n < 2; n++) {
      expect(() => fetched.read()).toThrow(
        expect.objectContaining({ code: 'LOG_CORRUPT', facts: { topic: 't', partition: 0, offset: 12 } }),
      );
      expect([fetched.nextOffset, fetched.done]).toEqual([12, false]);
    }
  });

  it('gives nothing of a batch of which a later record cannot be read', () => {
    const bad = data(12, A, 'first', 'second');
    bad[bad.length - 1] = 2; // the second claims a header
    const bytes = Buffer.concat([data(10, A, 'a', 'b'), sealed(bad)]);
    const fetched = new FetchedRecords({ topic: 't', partition: 0, from: 10, bytes, aborted: [] });
    expect(fetched.read().records.map(({ offset }) => offset)).toEqual([10, 11]);
    expect(() => fetched.read()).toThrow(expect.objectContaining({ code: 'LOG_CORRUPT' }));
  });
});

const producer = (producerId: bigint) => ({ producerId, epoch: 0, baseSequence: 0 });

function at(offset: number, bytes: Buffer): Buffer {
  bytes.writeBigInt64BE(BigInt(offset), 0); // outside the CRC
  return bytes;
}

function batch(offset: number, producerId: bigint, of: readonly string[], more: Partial<OutRecord> = {}): Buffer {
  const records = of.map((value) => ({ topic: 't', key: null, value: Buffer.from(value), ...more }));
  return at(offset, recordBatch(records, producer(producerId), 0));
}

function data(offset: number, producerId: bigint, ...of: string[]): Buffer {
  return batch(offset, producerId, of);
}

function marker(offset: number, producerId: bigint, type: number): Buffer {
  const bytes = batch(offset, producerId, ['xxxxxx'], { key: Buffer.from([0, 0, 0, type]) });
  bytes.writeInt16BE(16 | 32, 21);
  return sealed(bytes);
}

function abort(offset: number, producerId: bigint): Buffer {
  return marker(offset, producerId, 0);
}

function commit(offset: number, producerId: bigint): Buffer {
  return marker(offset, producerId, 1);
}

function packed(codec: number, pack: (records: Buffer) => Buffer): Buffer {
  const plain = data(0, A, 'packed');
  const bytes = Buffer.concat([plain.subarray(0, 61), pack(plain.subarray(61))]);
  bytes.writeInt16BE(16 | codec, 21);
  return sealed(bytes);
}

/** Size and CRC made right again after a change. */
function sealed(bytes: Buffer): Buffer {
  bytes.writeInt32BE(bytes.length - 12, 8);
  bytes.writeUInt32BE(crc32c(bytes.subarray(21)), 17);
  return bytes;
}

/** At once, and batch by batch: the filter knows where it is from one portion to the next. */
function decode(from: number, batches: readonly Buffer[], aborted: readonly AbortedTransaction[] = []) {
  const fetched = { topic: 't', partition: 0, from, bytes: Buffer.concat(batches), aborted };
  const whole = decodeFetched(fetched);
  expect(decodeFetched(fetched, 1)).toEqual(whole);
  return whole;
}

function values({ records }: ReturnType<typeof decodeFetched>): (string | undefined)[] {
  return records.map(({ value }) => value?.toString());
}
