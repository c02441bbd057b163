import { connect } from 'node:net';
import { frameSplitter } from './kafka-frames.js';

export interface RawRequest {
  readonly apiKey: number;
  readonly version: number;
  /** Flexible versions have a longer header on both sides. */
  readonly flexible: boolean;
  readonly body: Buffer;
}

/** One request on a connection of its own to a broker on this machine; resolves with the body of the response. */
export function kafkaRequest(port: number, request: RawRequest, timeoutMs = 2000): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    const settle = (end: () => void): void => {
      clearTimeout(timer);
      socket.destroy();
      end();
    };
    const failed = (why: string): void => settle(() => reject(new Error(`Kafka request ${request.apiKey}: ${why}`)));
    const timer = setTimeout(() => failed(`no response from 127.0.0.1:${port} within ${timeoutMs} ms`), timeoutMs);
    socket.on('connect', () => socket.write(requestFrame(request)));
    socket.on(
      'data',
      // Size and correlation id; a flexible header ends with its tags.
      frameSplitter((frame) => settle(() => resolve(frame.subarray(request.flexible ? 9 : 8)))),
    );
    socket.on('error', (error) => failed(error.message));
    socket.on('close', () => failed('the connection was closed'));
  });
}

function requestFrame({ apiKey, version, flexible, body }: RawRequest): Buffer {
  const header = Buffer.alloc(16 + (flexible ? 1 : 0));
  header.writeInt32BE(header.length - 4 + body.length, 0);
  header.writeInt16BE(apiKey, 4);
  header.writeInt16BE(version, 6);
  header.writeInt32BE(1, 8);
  header.writeInt16BE(2, 12);
  header.write('up', 14);
  return Buffer.concat([header, body]);
}

export const int8 = (value: number): Buffer => Buffer.from([value]);

export function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

export function string(value: string): Buffer {
  const text = Buffer.from(value);
  const length = Buffer.alloc(2);
  length.writeInt16BE(text.length);
  return Buffer.concat([length, text]);
}

/** The length of a text or an array in flexible versions; up to 16,382. */
export function compact(length: number): Buffer {
  const value = length + 1;
  return Buffer.from(value < 0x80 ? [value] : [(value & 0x7f) | 0x80, value >> 7]);
}

/** Reads the fields of a response one after the other. */
export class ResponseReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  int8(): number {
    return this.#bytes.readInt8(this.#skip(1));
  }

  int16(): number {
    return this.#bytes.readInt16BE(this.#skip(2));
  }

  int32(): number {
    return this.#bytes.readInt32BE(this.#skip(4));
  }

  /** Empty for null. */
  string(): string {
    const length = Math.max(this.int16(), 0);
    const at = this.#skip(length);
    return this.#bytes.toString('utf8', at, at + length);
  }

  array<T>(element: () => T): T[] {
    return Array.from({ length: this.int32() }, element);
  }

  #skip(length: number): number {
    const at = this.#at;
    this.#at += length;
    return at;
  }
}
