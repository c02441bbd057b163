import { u32, u64, xlogData } from '../pgoutput.testing.js';
import { WalFrames } from '../wal-frames.js';
import type { FramedMessage } from './streamed-transactions.js';

/** Encoders of what protocol version 2 adds. */
export const stream = {
  start: (xid: number, first: boolean) => Buffer.concat([Buffer.from('S'), u32(xid), Buffer.from([first ? 1 : 0])]),
  stop: () => Buffer.from('E'),
  commit: (xid: number, commitLsn: bigint, endLsn: bigint, micros: bigint) =>
    Buffer.concat([Buffer.from('c'), u32(xid), Buffer.from([0]), u64(commitLsn), u64(endLsn), u64(micros)]),
  abort: (top: number, xid: number) => Buffer.concat([Buffer.from('A'), u32(top), u32(xid)]),
  /** A message of version 1 as it stands in a stream. */
  within: (xid: number, message: Buffer) => Buffer.concat([message.subarray(0, 1), u32(xid), message.subarray(1)]),
};

const OTHER = xlogData(Buffer.from('?'));

/** The message as it comes from the socket, between other bytes. */
export function framed(message: Buffer, lsn = 0n): FramedMessage {
  const frames = new WalFrames();
  frames.feed(Buffer.concat([OTHER, xlogData(message, lsn), OTHER]));
  frames.next();
  frames.next();
  return frames;
}
