import { once } from 'node:events';
import net from 'node:net';
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { BufferPool, type HandOver } from '@headwater/core';
import { encodeAssignment } from './assignment-codec.js';
import { ByteWriter } from './bytes.js';
import { GroupSeat } from './group-seat.js';
import { FENCED_INSTANCE_ID, REBALANCE_IN_PROGRESS } from './kafka.errors.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { Lane, type Address } from './lane.js';
import type { Call } from './requests/call.js';
import type { Wire } from './wire.js';

const JOIN_GROUP = 11;
const SYNC_GROUP = 14;
const API_VERSIONS = 18;
const HOLDS: HandOver = { given: [0, 1], asked: [], coming: [] };

/** A coordinator that admits everybody to its generation, and has a plan of it, or none yet. */
class Coordinator {
  generation = 1;
  plan: HandOver | undefined = HOLDS;
  /** What it answers to SyncGroup instead of its plan. */
  refusal = 0;
  readonly joinedAs: string[] = [];
  readonly #server = net.createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (frame: Buffer) => {
      // Behind the header and the group: session and rebalance time-outs, then the member's id.
      if (frame.readInt16BE(4) === JOIN_GROUP) this.joinedAs.push(frame.includes('\x03me') ? 'me' : '');
      socket.write(this.#answer(frame.readInt16BE(4), frame.readInt32BE(8)));
    });
  });

  async listen(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return this;
  }

  get address(): Address {
    return { host: '127.0.0.1', port: (this.#server.address() as net.AddressInfo).port };
  }

  close(): void {
    this.#server.close();
  }

  #answer(apiKey: number, correlationId: number): Buffer {
    const answer = new ByteWriter().int32(correlationId);
    if (apiKey === API_VERSIONS) {
      answer.int16(0);
      answer.compactArray([JOIN_GROUP, SYNC_GROUP], (key) => answer.int16(key).int16(0).int16(20).tags());
      answer.int32(0).tags();
    } else if (apiKey === JOIN_GROUP) {
      answer.tags().int32(0).int16(0).int32(this.generation).compactString('consumer').compactString('p');
      answer.compactString('another leads').bool(false).compactString('me');
      answer.compactArray([], () => undefined).tags();
    } else {
      const { plan } = this;
      answer
        .tags()
        .int32(0)
        .int16(this.refusal || (plan === undefined ? REBALANCE_IN_PROGRESS : 0));
      answer.compactString('consumer').compactString('p');
      answer.compactBytes(plan === undefined ? Buffer.alloc(0) : encodeAssignment(['t'], plan)).tags();
    }
    return new ByteWriter().bytes(answer.done()).done();
  }
}

let a: Coordinator;
let b: Coordinator;
let lane: Lane;
let seat: GroupSeat;
let asked: Coordinator;
beforeEach(async () => {
  [a, b] = [await new Coordinator().listen(), await new Coordinator().listen()];
  lane = new Lane(kafkajsClient({ brokers: ['127.0.0.1:1'], clientId: 'seat' }).connections, 1_000, new BufferPool());
  const coordinated = (_: number, __: string, call: Call<unknown>) => lane.send(asked.address, call);
  const wire = { requestTimeoutMs: 1_000, closing: new AbortController(), coordinated } as unknown as Wire;
  const timeouts = { sessionTimeoutMs: 6_000, rebalanceTimeoutMs: 6_000 };
  seat = new GroupSeat(wire, { groupId: 'g', topics: ['t'], ...timeouts, instanceId: 'i' });
});
afterEach(async () => {
  await lane.close();
  a.close();
  b.close();
});

/** Joins at one coordinator, and gets the plan from the other or from the same. */
async function round(known: number, joins: Coordinator, syncs: Coordinator) {
  const { signal } = new AbortController();
  asked = joins;
  const joined = await seat.join(known < 0 ? [] : [0, 1], known, lane, signal);
  if (joined === undefined || joined === 'missed') return joined;
  asked = syncs;
  return seat.sync(joined, known, () => Promise.resolve(2), lane, signal);
}

it('S71 takes no plan from another coordinator than the one it joined at, also when it has known both for long', async () => {
  expect(await round(-1, a, a)).toEqual(HOLDS);
  b.generation = 2;
  expect(await round(1, b, b)).toEqual(HOLDS);
  // The next one is lost with its coordinator, and the other has made another one of that number.
  a.generation = b.generation = 3;
  expect(await round(2, b, a)).toBe('missed');
});

it('S71 goes on to the generation after one whose plan it did not get, unless its coordinator is another one by then', async () => {
  expect(await round(-1, a, a)).toEqual(HOLDS);
  a.generation = 2;
  a.plan = undefined;
  expect(await round(1, a, a)).toBeUndefined();
  a.generation = 3;
  a.plan = HOLDS;
  expect(await round(1, a, a)).toEqual(HOLDS);
  a.generation = 4;
  a.plan = undefined;
  expect(await round(3, a, a)).toBeUndefined();
  // Its generation 4 may be another one, made without this member.
  b.generation = 5;
  expect(await round(3, b, b)).toBe('missed');
});

it('S71 is not fenced by a coordinator that has never heard of its join; by one that knows better it is', async () => {
  b.refusal = FENCED_INSTANCE_ID;
  expect(await round(-1, a, b)).toBeUndefined();
  expect(await round(-1, a, a)).toEqual(HOLDS);
  // Not as who it was before: that one is known to nobody.
  expect(a.joinedAs).toEqual(['', '']);
  b.generation = 2;
  await expect(round(1, b, b)).rejects.toMatchObject({ code: 'LOG_INSTANCE_FENCED' });
  expect(b.joinedAs).toEqual(['me']);
});

it('S71 is fenced before its first plan, too, by the coordinator that it joined at', async () => {
  a.refusal = FENCED_INSTANCE_ID;
  await expect(round(-1, a, a)).rejects.toMatchObject({ code: 'LOG_INSTANCE_FENCED' });
});
