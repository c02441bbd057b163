import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { errorCode } from '@headwater/core';
import { seededRandom } from '@headwater/testing';
import type { Random } from '@headwater/testing';
import { assertSame, outcomeOf, outcomeOfModel } from '../differential.testing.js';
import * as pg from '../pgoutput.testing.js';
import type { WalMessage } from '../transaction-assembler.js';
import { SimpleStreams } from './simple-streams.testing.js';
import { Spools } from './spools.js';
import { framed, stream } from './stream-bytes.testing.js';
import { Reader, StreamingServer } from './stream-model.testing.js';
import { StreamedTransactions } from './streamed-transactions.js';

let directory: string;
beforeEach(async () => void (directory = await mkdtemp(join(tmpdir(), 'streamed-'))));
afterEach(() => rm(directory, { recursive: true, force: true }));

const never = new AbortController().signal;

describe('StreamedTransactions', () => {
  it('says what version 1 says, of random transactions, subtransactions, descriptions and rollbacks, from memory and from files', async () => {
    const seed = Number(process.env['HEADWATER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    const random = seededRandom(seed);
    const figures = { lines: 0, whole: 0, unplaced: 0, files: 0 };
    for (let round = 0; round < 400; round++) {
      const server = new StreamingServer(random, random.chance(0.4));
      for (let left = 150; left > 0; left--) server.step();
      server.finish();
      const spools = await Spools.open(join(directory, String(round)), random.pick([200, 1_000, 100_000]));
      const reader = new Reader();
      const streamed = new StreamedTransactions({
        spools,
        outbox: true,
        signal: never,
        put: ({ bytes, start, end }) => {
          reader.read(bytes.subarray(start, end));
          // As one that has to wait, now and then.
          return random.chance(0.1) ? Promise.resolve() : undefined;
        },
      });
      let unplaced = false;
      try {
        for (const message of server.wire) await streamed.accept(framed(message));
      } catch (error) {
        if (errorCode(error) !== 'CDC_MESSAGE_UNPLACED')
          throw new Error(`seed ${seed}, round ${round}`, { cause: error });
        unplaced = true;
      }
      figures.files += (await readdir(join(directory, String(round)))).length;
      await spools.close();
      figures[unplaced ? 'unplaced' : 'whole'] += 1;
      figures.lines += reader.lines.length;
      // What cannot be placed ends the connection, and what came before is right.
      const due = unplaced ? server.due.slice(0, reader.lines.length) : server.due;
      assertSame(reader.lines, due, `seed ${seed}, round ${round}`);
    }
    // The tries were worth it: most are read to their end, some cannot be, and some had files.
    expect(figures.lines).toBeGreaterThan(5_000);
    expect(figures.whole).toBeGreaterThan(200);
    expect(Math.min(figures.unplaced, figures.files)).toBeGreaterThan(5);
    expect(await readdir(directory)).toEqual([]);
  });

  it('C90 takes no stream that was not asked for, and passes by the aborts that PostgreSQL 18 tells all the same', async () => {
    const put: string[] = [];
    const streamed = new StreamedTransactions({
      spools: undefined,
      outbox: true,
      signal: never,
      put: ({ bytes, start }) => void put.push(String.fromCharCode(bytes[start]!)),
    });
    for (const message of [stream.abort(5, 6), pg.begin(1n, 1n, 7), pg.commit(1n, 2n), stream.abort(5, 5)])
      await streamed.accept(framed(message));
    expect(put).toEqual(['B', 'C']);
    const others = [stream.start(5, true), stream.commit(5, 1n, 2n, 3n), stream.stop()];
    for (const message of others)
      expect(() => streamed.accept(framed(message))).toThrow(expect.objectContaining({ code: 'CDC_PROTOCOL' }));
  });

  it('C90 makes of half a million damaged messages what they say, or CDC_PROTOCOL', async () => {
    const seed = Number(process.env['HEADWATER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    const random = seededRandom(seed);
    const figures = { accepted: 0, refused: 0, said: 0 };
    const spools = await Spools.open(directory, 10_000_000);
    const { stackTraceLimit } = Error;
    // The traces of so many errors would take longer than everything else.
    Error.stackTraceLimit = 0;
    for (let [count, streams] = [0, 1]; count < 500_000; streams++) {
      const said: string[] = [];
      const put = ({ bytes, start, end }: WalMessage) => void said.push(bytes.toString('latin1', start, end));
      const ours = new StreamedTransactions({ spools, outbox: false, signal: never, put });
      const theirs = new SimpleStreams();
      const message = hostile(random);
      let found: string;
      do {
        const bytes = message();
        const expected = outcomeOfModel(() => theirs.accept(bytes));
        found = await outcomeOf(() => ours.accept(framed(bytes)));
        if (expected !== found) throw new Error(`seed ${seed}: ${bytes.toString('hex')} was ${found}, not ${expected}`);
        figures[expected] += 1;
        count += 1;
      } while (found === 'accepted' && random.chance(0.995));
      const due = theirs.said.map((bytes) => bytes.toString('latin1'));
      assertSame(said, due, `seed ${seed}`);
      figures.said += said.length;
      // Asks the file system: for every one of so many streams it would take as long as all the rest.
      if (streams % 50 === 0) await spools.close();
    }
    Error.stackTraceLimit = stackTraceLimit;
    expect(Math.min(...Object.values(figures))).toBeGreaterThan(10_000);
  });
});

const PLAIN = [pg.insert(5, ['1']), pg.remove(5, ['1']), pg.truncate(5), pg.logical(true, 1n, 'other', 'm')];

/** Messages of a few transactions in any order, one in fifteen of them damaged. */
function hostile(random: Random): () => Buffer {
  const begun = new Set<number>();
  let block = 0;
  return () => {
    const top = random.pick([7, 8]);
    const sub = random.pick([top, top, 9, 10, 11]);
    const row = random.pick(PLAIN);
    let sound: Buffer;
    if (block !== 0) {
      sound = random.chance(0.3) ? stream.stop() : stream.within(random.pick([block, sub]), row);
      if (sound.length === 1) block = 0;
    } else if (random.chance(0.5)) {
      sound = stream.start(top, !begun.has(top));
      begun.add(top);
      block = top;
    } else if (random.chance(0.3)) {
      sound = stream.abort(top, sub);
      if (top === sub) begun.delete(top);
    } else {
      sound = begun.delete(top) ? stream.commit(top, 1n, 2n, 3n) : row;
    }
    return random.chance(0.93) ? sound : damaged(random, sound);
  };
}

function damaged(random: Random, sound: Buffer): Buffer {
  const message = Buffer.from(sound);
  switch (random.below(4)) {
    case 0:
      return message.subarray(0, random.below(message.length));
    case 1:
      return Buffer.concat([message, Buffer.alloc(1 + random.below(9), random.below(256))]);
    case 2:
      message[0] = random.below(256);
      return message;
    default:
      message[random.below(message.length)]! ^= 1 << random.below(8);
      return message;
  }
}
