import { once } from 'node:events';
import net from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { BufferPool } from '@headwater/core';
import { ByteWriter } from './bytes.js';
import { kafkajsClient } from './kafkajs-hook.js';
import { Lane, type Address } from './lane.js';
import { flexible, type Call } from './requests/call.js';

/** Notes which buffers are out. */
class WatchedPool extends BufferPool {
  readonly out = new Set<Buffer>();

  override take(bytes: number): Buffer {
    const buffer = super.take(bytes);
    this.out.add(buffer);
    return buffer;
  }

  override give(buffer: Buffer): void {
    this.out.delete(buffer);
    super.give(buffer);
  }
}

const ECHO = 3;
const API_VERSIONS = 18;

/** Asks for its text back. */
const echo = (text: string, apiVersion = 1): Call<string> =>
  flexible(
    ECHO,
    'Echo',
    apiVersion,
    (body) => body.compactString(text),
    (answer) => answer.compactString()!,
    { capacity: text.length },
  );

let server: net.Server;
let address: Address;
let sockets: net.Socket[];
/** What the broker does with a frame; it may answer with its text. */
let onFrame: (text: string, answer: () => void) => void;
/** The versions of Echo that the broker says it speaks. */
let spoken: { from: number; to: number } | undefined;
/** What it answers to ApiVersions instead. */
let refusal: number | undefined;
/** Called instead of any answer to it. */
let onGreeting: (() => void) | undefined;
let buffers: WatchedPool;
let lane: Lane;
beforeEach(async () => {
  sockets = [];
  onFrame = (_, answer) => answer();
  spoken = { from: 1, to: 1 };
  refusal = undefined;
  onGreeting = undefined;
  server = net.createServer((socket) => {
    sockets.push(socket);
    let bytes = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 4 && bytes.length >= 4 + bytes.readInt32BE(0)) {
        const frame = bytes.subarray(4, 4 + bytes.readInt32BE(0));
        bytes = bytes.subarray(4 + frame.length);
        if (frame.readInt16BE(0) === API_VERSIONS) {
          if (onGreeting !== undefined) return onGreeting();
          socket.write(new ByteWriter().bytes(versionsAnswer(frame.readInt32BE(4))).done());
          continue;
        }
        const text = frame.toString('utf8').replace(/^.*?lane\0/su, '');
        onFrame(text, () => {
          const answer = new ByteWriter()
            .int32(frame.readInt32BE(4))
            .tags()
            .raw(frame.subarray(8 + 2 + 4 + 1));
          socket.write(new ByteWriter().bytes(answer.done()).done());
        });
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  address = { host: '127.0.0.1', port: (server.address() as net.AddressInfo).port };
  buffers = new WatchedPool();
  lane = new Lane(connections(), 1_000, buffers);
});
const connections = () => kafkajsClient({ brokers: [`127.0.0.1:${address.port}`], clientId: 'lane' }).connections;
afterEach(async () => {
  await lane.close();
  for (const socket of sockets) socket.destroy();
  server.close();
  await once(server, 'close');
});

function versionsAnswer(correlationId: number): Buffer {
  const answer = new ByteWriter().int32(correlationId).int16(refusal ?? 0);
  // As version 0 has it: what a broker answers that does not know the version asked.
  if (refusal !== undefined) return answer.array([0], () => answer.int16(API_VERSIONS).int16(0).int16(2)).done();
  answer.compactArray(spoken === undefined ? [] : [spoken], ({ from, to }) =>
    answer.int16(ECHO).int16(from).int16(to).tags(),
  );
  return answer.int32(0).tags().done();
}

describe('Lane', () => {
  it('sends no request in a version that its broker does not speak, and learns with each connection which those are', async () => {
    await expect(lane.send(address, echo('older', 2))).rejects.toMatchObject({
      code: 'KAFKA_TOO_OLD',
      message: expect.stringContaining(
        `broker 127.0.0.1:${address.port} is too old: Echo v2 is needed, and it ends at v1. Upgrade it to Kafka 3.2 or later.`,
      ),
    });
    spoken = undefined;
    // What it speaks is known for as long as the connection lasts.
    expect(await lane.send(address, echo('before'))).toBe('before');
    lane.cut();
    await expect(lane.send(address, echo('unknown'))).rejects.toThrow('and it does not know it');
    spoken = { from: 2, to: 3 };
    lane.cut();
    await expect(lane.send(address, echo('newer'))).rejects.toMatchObject({
      code: 'KAFKA_TOO_NEW',
      message: expect.stringContaining('speaks Echo from v2 on, and v1 is what this Headwater speaks'),
    });
    expect(await lane.send(address, echo('upgraded', 2))).toBe('upgraded');
    refusal = 35;
    lane.cut();
    await expect(lane.send(address, echo('ancient'))).rejects.toThrow(
      'is too old: ApiVersions v3 is needed, and it does not speak it',
    );
    refusal = 33;
    await expect(lane.send(address, echo('refused'))).rejects.toMatchObject({ code: 'KAFKA_REFUSED' });
    expect(buffers.out.size).toBe(0);
  });

  it('uses the memory of a request again once that is answered, also of many at once', async () => {
    const texts = Array.from({ length: 20 }, (_, n) => `${n}`.repeat(50_000));
    expect(await Promise.all(texts.map((text) => lane.send(address, echo(text))))).toEqual(texts);
    expect(buffers.out.size).toBe(0);
    const taken = buffers.take(100_000);
    buffers.give(taken);
    expect(await lane.send(address, echo('x'.repeat(90_000)))).toHaveLength(90_000);
    expect(buffers.take(100_000)).toBe(taken);
  });

  it('never uses the memory of a request again that was not answered: its bytes may still be on their way', async () => {
    const late: (() => void)[] = [];
    onFrame = (_, answer) => late.push(answer);
    await expect(lane.send(address, echo('late'.repeat(1_000)))).rejects.toThrow(/timed out/);
    expect(buffers.out.size).toBe(1);
    onFrame = (_, answer) => answer();
    for (const answer of late) answer();
    expect(await lane.send(address, echo('next'))).toBe('next');
    expect(buffers.out.size).toBe(1);
  });

  it.each(['cut', 'close'] as const)(
    'gives up at once, at a %s, on a broker that does not say what it speaks',
    async (how) => {
      const greeted = new Promise<void>((resolve) => (onGreeting = resolve));
      const rejected = expect(lane.send(address, echo('greeting'))).rejects.toThrow(/given up/);
      await greeted;
      await Promise.all([lane[how](), rejected]);
      if (how === 'close') return;
      // Before it has connected, too: then it does not even greet.
      onGreeting = () => expect('greeted').toBe('given up');
      const early = expect(lane.send(address, echo('early'))).rejects.toThrow(/given up/);
      lane.cut();
      await early;
    },
  );

  it.each(['cut', 'close'] as const)('rejects what waits for its connection or its answer at a %s', async (how) => {
    const connecting = lane.send(address, echo('connecting'));
    void lane[how]();
    await expect(connecting).rejects.toThrow();
    if (how === 'close') return;
    let heard!: () => void;
    const frame = new Promise<void>((resolve) => (heard = resolve));
    onFrame = () => heard();
    const asked = lane.send(address, echo('asked'));
    await frame;
    lane.cut();
    await expect(asked).rejects.toThrow('given up');
  });

  it('rejects what is sent in the same turn in which the connection is cut, before or after it', async () => {
    await lane.send(address, echo('connected'));
    onFrame = () => undefined;
    const before = lane.send(address, echo('before'));
    lane.cut();
    await expect(before).rejects.toThrow(/ended|given up/);
    onFrame = (_, answer) => answer();
    expect(await lane.send(address, echo('after'))).toBe('after');
  });

  it('says that no broker listens where something else than Kafka answers, and asks anew the next time', async () => {
    await lane.send(address, echo('connected'));
    onFrame = () => sockets.at(-1)!.write('HTTP/1.1 400 Bad Request\r\n\r\n');
    await expect(lane.send(address, echo('asked'))).rejects.toThrow('no Kafka broker listens there, it wants TLS');
    onFrame = (_, answer) => answer();
    expect(await lane.send(address, echo('again'))).toBe('again');
  });

  it('reads answers that arrive on several connections at once, each its own', async () => {
    const lanes = [1, 2, 3].map(() => new Lane(connections(), 1_000, buffers));
    const texts = lanes.map((_, n) => `${n}`.repeat(3_000_000));
    expect(await Promise.all(lanes.map((one, n) => one.send(address, echo(texts[n]!))))).toEqual(texts);
    await Promise.all(lanes.map((one) => one.close()));
  });
});
