import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { decodeRun, partitionOf, RecordRuns } from '@headwater/core';
import type { OutRecord } from '@headwater/core';
import { seededRandom } from '@headwater/testing';
import type { Random } from '@headwater/testing';
import { excluded } from './column-rules.js';
import { assertSame, outcomeOf, outcomeOfModel } from './differential.testing.js';
import { JsonTypes } from './json-types.js';
import type { Lsn } from './lsn.js';
import { ObjectPath } from './object-path.testing.js';
import type { Relation, Tuple } from './pgoutput.js';
import * as pg from './pgoutput.testing.js';
import type { RelationSpec } from './pgoutput.testing.js';
import { tableShape } from './rows.js';
import type { TableShape } from './rows.js';
import type { SnapshotWindow } from './snapshot-window.js';
import { TransactionAssembler } from './transaction-assembler.js';
import type { Progress } from './transaction-assembler.js';

const PARTITIONS = 3;
const type = (oid: number, name: string, elementOid = 0) => ({
  oid,
  name,
  kind: 'b' as const,
  elementOid,
  delimiter: ',',
  baseOid: 0,
  fields: [],
});
/** A type whose columns are left out by rule. */
const EXCLUDED = 17_000;
const NO_SNAPSHOTS: SnapshotWindow = {
  active: false,
  begin: () => {},
  watches: () => false,
  changed: () => {},
  disturbed: () => {},
  watermark: () => undefined,
  signal: () => undefined,
};
const JSON_TYPES = new JsonTypes(
  new Map([
    [1009, type(1009, '_text', 25)],
    [25, type(25, 'text')],
  ]),
);

function shapeOf({ schema, name, columns }: Relation): TableShape {
  return tableShape(
    { table: `${schema}.${name}`, topic: `topic.${name.slice(0, 1)}` },
    columns.map((of) => ({
      name: of.name,
      encode: of.typeOid === EXCLUDED ? excluded : JSON_TYPES.encoder(of.typeOid),
    })),
    columns.filter((of) => of.identity).map((of) => of.name),
  );
}

/** The assembler over a sink that keeps what it is given. */
class Assembled {
  readonly runs = new RecordRuns();
  readonly completed: Progress[] = [];
  readonly bytes = Buffer.alloc(100_000, 0xee);
  assembler: TransactionAssembler;

  constructor(
    private readonly window: SnapshotWindow = NO_SNAPSHOTS,
    private readonly present?: (key: Tuple) => Tuple | undefined,
  ) {
    this.assembler = this.connected();
  }

  /** As a new connection has it: nothing known of the stream. */
  connected(): TransactionAssembler {
    const { runs, window, present } = this;
    return new TransactionAssembler(
      {
        topic: (topic) => runs.topic(topic) ?? runs.openTopic(topic, PARTITIONS),
        add: (record) => runs.topic(record.topic)!.add(record),
        complete: (progress) => {
          runs.complete();
          this.completed.push(progress);
        },
        ignored: () => {},
      },
      { shape: async (relation) => shapeOf(relation), readRow: async (_, key) => present?.(key) },
      // Damage may make any LSN: none of them counts as published.
      -1n as Lsn,
      window,
      undefined,
    );
  }

  accept(message: Buffer): Promise<void> | undefined {
    // Inside of other bytes, as it comes from the socket.
    const { bytes } = this;
    message.copy(bytes, 6);
    return this.assembler.accept({ bytes, start: 6, end: 6 + message.length, lsn: 0n as Lsn });
  }

  records(): OutRecord[] {
    return this.runs.take('everything', 0).flatMap(decodeRun);
  }
}

const plain = (records: readonly OutRecord[]) =>
  records.map(({ topic, partition, key, value, headers }) =>
    [
      topic,
      partition ?? partitionOf(key!, PARTITIONS),
      key!.toString('latin1'),
      value?.toString('latin1'),
      ...headers!.map(([name, bytes]) => `${name}=${bytes?.toString('latin1')}`),
    ].join('\u0000'),
  );

/** By partition, in order. */
function sorted(records: readonly OutRecord[]): string[] {
  const rank = (line: string) => line.split('\u0000', 2).join('/');
  return plain(records)
    .map((line, i) => [rank(line), i, line] as const)
    .sort((a, b) => (a[0] === b[0] ? a[1] - b[1] : a[0] < b[0] ? -1 : 1))
    .map(([, , line]) => line);
}

function randomChange(random: Random, relation: RelationSpec): Buffer {
  const { oid, columns } = relation;
  const row = pg.randomRow(random, relation);
  switch (random.below(4)) {
    case 0:
      return pg.insert(oid, row);
    case 1:
      return pg.update(oid, row);
    case 2: {
      const full = random.chance(0.5);
      const old = full ? pg.randomRow(random, relation, false) : row.map((cell, i) => (columns[i]!.key ? cell : null));
      return pg.update(oid, row, old, full ? 'O' : 'K');
    }
    default:
      return pg.remove(
        oid,
        row.map((cell, i) => (columns[i]!.key ? cell : null)),
      );
  }
}

describe('TransactionAssembler', () => {
  // Most damage is refused: the traces of so many errors would take longer than everything else.
  const { stackTraceLimit } = Error;
  beforeEach(() => void (Error.stackTraceLimit = 0));
  afterEach(() => void (Error.stackTraceLimit = stackTraceLimit));

  it('makes of random changes what the object path makes of them, byte for byte', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seededRandom(seed);
    try {
      for (let round = 0; round < 60; round++) {
        const ours = new Assembled();
        const theirs = new ObjectPath(shapeOf);
        const relations = Array.from({ length: 3 }, (_, i) => pg.randomRelation(random, 10 + i, `${'ab'[i % 2]}${i}`));
        const messages: Buffer[] = relations.map(pg.relation);
        for (let n = 1; n <= 40; n++) {
          messages.push(
            pg.begin(
              BigInt(random.below(2 ** 32)) << 7n,
              BigInt(random.below(2 ** 32)) * 200_000n - 4n,
              random.below(2 ** 32),
            ),
          );
          for (let left = random.below(6); left > 0; left--)
            messages.push(randomChange(random, random.pick(relations)));
          messages.push(pg.commit(messages.findLast((of) => of[0] === 0x42)!.readBigUInt64BE(1), BigInt(n)));
        }
        for (const message of messages) {
          theirs.accept(message);
          await ours.accept(message);
        }
        expect(sorted(ours.records())).toEqual(sorted(theirs.records));
      }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  });

  it('C90 makes of half a million damaged messages the right row or CDC_PROTOCOL', async () => {
    const seed = Number(process.env['HEADWATER_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    const random = seededRandom(seed);
    const figures = { accepted: 0, refused: 0 };
    for (let count = 0; count < 500_000;) {
      const ours = new Assembled();
      const wanted: OutRecord[] = [];
      const relation = pg.randomRelation(random, 9, 'a');
      const start = [pg.relation(relation), pg.begin(64n, 1n, 1)];
      const begun = new ObjectPath(shapeOf);
      for (const message of start) begun.accept(message);
      let theirs = begun.copy();
      // Long texts are the other test's.
      const changes = Array.from({ length: 60 }, () => randomChange(random, relation)).filter((of) => of.length < 300);
      const sound = [...start, pg.commit(64n, 65n), pg.logical(true, 5n, 'other', '{}'), ...changes];
      let isOver = true;
      for (let left = 2_000; left > 0; left--, count++) {
        if (isOver) {
          wanted.push(...theirs.records);
          theirs = begun.copy();
          ours.assembler = ours.connected();
          for (const message of start) await ours.accept(message);
        }
        const message = damaged(random, sound);
        const expected = outcomeOfModel(() => theirs.accept(message));
        const found = await outcomeOf(() => ours.accept(message), ['CDC_PROTOCOL', 'CDC_TRUNCATE_UNSUPPORTED']);
        if (expected !== found)
          throw new Error(`seed ${seed}: ${message.toString('hex')} was ${found}, not ${expected}`);
        figures[found] += 1;
        // A stream is over when one message is refused.
        isOver = found === 'refused';
      }
      const [made, due] = [ours.records(), [...wanted, ...theirs.records]].map(sorted);
      assertSame(made!, due!, `seed ${seed}`);
    }
    // Both kinds came, many of each.
    expect(Math.min(figures.accepted, figures.refused)).toBeGreaterThan(10_000);
  });
});

/** A sound message with a few bytes changed, cut, added, or another one's end. */
function damaged(random: Random, sound: readonly Buffer[]): Buffer {
  const message = Buffer.from(random.pick(sound));
  switch (random.below(8)) {
    case 0:
      return message.subarray(0, random.below(message.length));
    case 1:
      return Buffer.concat([message, Buffer.alloc(1 + random.below(9), random.below(256))]);
    case 2: {
      const other = random.pick(sound);
      return Buffer.concat([
        message.subarray(0, random.below(message.length)),
        other.subarray(random.below(other.length)),
      ]);
    }
    case 3:
      message[random.below(Math.min(12, message.length))] = random.below(256);
      return message;
    case 4:
      if (message.length > 12)
        message.writeUInt32BE(
          random.pick([0, 1, 2 ** 31, 2 ** 32 - 1, random.below(300)]),
          random.below(message.length - 4),
        );
      return message;
    default:
      for (let left = 1 + random.below(2); left > 0; left--)
        message[random.below(message.length)]! ^= 1 << random.below(8);
      return message;
  }
}
