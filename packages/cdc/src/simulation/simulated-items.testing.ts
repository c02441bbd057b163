import { formatLsn } from '../lsn.js';
import type { Lsn } from '../lsn.js';
import type { StreamItem } from '../replication-stream.js';
import type { SourceStream } from '../source.js';
import type { SimulatedStream } from './simulated-stream.testing.js';

/** Cuts the bytes of a stream into what the library hands on. */
export function inItems(stream: SimulatedStream): SourceStream {
  let rest: Buffer = Buffer.alloc(0);
  const shift = (): StreamItem | undefined => {
    for (let more = stream.shift(); more !== undefined; more = stream.shift()) rest = Buffer.concat([rest, more]);
    if (rest.length < 5 || rest.length < 1 + rest.readUInt32BE(1)) return undefined;
    const body = rest.subarray(5, 1 + rest.readUInt32BE(1));
    rest = rest.subarray(1 + rest.readUInt32BE(1));
    const lsn = body.readBigUInt64BE(1) as Lsn;
    if (body[0] === 0x77) return { bytes: Buffer.from(body.subarray(25)), lsn: formatLsn(lsn) };
    if (body[17] === 1) stream.sendStatus();
    return { keepalive: lsn };
  };
  return {
    shift,
    arrival: () => stream.arrival(),
    wake: () => stream.wake(),
    sendStatus: () => stream.sendStatus(),
    close: () => stream.close(),
  };
}
