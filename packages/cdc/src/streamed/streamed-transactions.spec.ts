import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { errorCode } from '@headwater/core';
import { seededRandom } from '@headwater/testing';
import { begin, commit } from '../pgoutput.testing.js';
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
      const wrong = due.findIndex((line, i) => line !== reader.lines[i]);
      if (wrong >= 0 || reader.lines.length !== due.length)
        throw new Error(
          `seed ${seed}, round ${round}: "${reader.lines[wrong]}" instead of "${due[wrong]}" at ${wrong} of ${due.length}`,
        );
    }
    // The tries were worth it: most are read to their end, some cannot be, and some had files.
    expect(figures.lines).toBeGreaterThan(5_000);
    expect(figures.whole).toBeGreaterThan(200);
    expect(Math.min(figures.unplaced, figures.files)).toBeGreaterThan(5);
    expect(await readdir(directory)).toEqual([]);
  }, 60_000);

  it('C90 takes no stream that was not asked for, and passes by the aborts that PostgreSQL 18 tells all the same', async () => {
    const put: string[] = [];
    const streamed = new StreamedTransactions({
      spools: undefined,
      outbox: true,
      signal: never,
      put: ({ bytes, start }) => void put.push(String.fromCharCode(bytes[start]!)),
    });
    for (const message of [stream.abort(5, 6), begin(1n, 1n, 7), commit(1n, 2n), stream.abort(5, 5)])
      await streamed.accept(framed(message));
    expect(put).toEqual(['B', 'C']);
    const others = [stream.start(5, true), stream.commit(5, 1n, 2n, 3n), stream.stop()];
    for (const message of others)
      expect(() => streamed.accept(framed(message))).toThrow(expect.objectContaining({ code: 'CDC_PROTOCOL' }));
  });
});
