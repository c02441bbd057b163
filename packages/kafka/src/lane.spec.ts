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

/** Asks for its text back. */
const echo = (text: string): Call<string> =>
  flexible(
    3,
    'Echo',
    0,
    (body) => body.compactString(text),
    (answer) => answer.compactString()!,
    { capacity: text.length },
  );

let server: net.Server;
let address: Address;
let sockets: net.Socket[];
/** What the broker does with a frame; it may answer with its text. */
let onFrame: (text: string, answer: () => void) => void;
let buffers: WatchedPool;
let lane: Lane;
beforeEach(async () => {
  sockets = [];
  onFrame = (_, answer) => answer();
  server = net.createServer((socket) => {
    sockets.push(socket);
    let bytes = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 4 && bytes.length >= 4 + bytes.readInt32BE(0)) {
        const frame = bytes.subarray(4, 4 + bytes.readInt32BE(0));
        bytes = bytes.subarray(4 + frame.length);
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
  const { connections } = kafkajsClient({ brokers: [`127.0.0.1:${address.port}`], clientId: 'lane' });
  lane = new Lane(connections, 1_000, buffers);
});
afterEach(async () => {
  await lane.close();
  for (const socket of sockets) socket.destroy();
  server.close();
  await once(server, 'close');
});

describe('Lane', () => {
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
});
