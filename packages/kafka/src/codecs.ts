import { createRequire } from 'node:module';
import { gunzipSync, gzipSync } from 'node:zlib';
import type * as Fzstd from 'fzstd';
import type Lz4 from 'lz4-napi';
import type Snappy from 'snappy';
import { KafkaError } from './kafka.errors.js';
import { lz4Exceeds } from './lz4-length.js';
import { zstdClaimsAbove } from './zstd-claims.js';

/** How record batches are compressed. All four are always read. */
export type Compression = 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** Compresses the records of one batch. `codec` is Kafka's number for it, kept in the batch's attributes. */
export interface Packer {
  readonly codec: number;
  readonly pack: (records: Buffer) => Buffer;
}

const NAMES: readonly (Compression | undefined)[] = [undefined, 'gzip', 'snappy', 'lz4', 'zstd'];
/** A few bytes can claim to unpack into gigabytes. */
const MAX_UNPACKED_BYTES = 256 << 20;
/** How snappy-java begins a stream of chunks: its magic, its version, the oldest version that reads it. */
const XERIAL = Buffer.from('82534e41505059000000000100000001', 'hex');
/** Zstandard's fastest ordinary level: a log is written more often than it is stored. */
const ZSTD_LEVEL = 1;

const require = createRequire(import.meta.url);

/** Loads what the codec needs. Rejects with LOG_CODEC_MISSING when its package does not run here. */
export async function packer(compression: Compression): Promise<Packer> {
  const codec = NAMES.indexOf(compression);
  switch (compression) {
    case 'gzip':
      return { codec, pack: (records) => gzipSync(records) };
    case 'snappy': {
      const snappy = load<typeof Snappy>('snappy', 'snappy');
      return { codec, pack: (records) => xerial(snappy.compressSync(records)) };
    }
    case 'lz4': {
      const lz4 = load<typeof Lz4>('lz4', 'lz4-napi');
      return { codec, pack: (records) => lz4.compressFrameSync(records) };
    }
    case 'zstd': {
      const zstd = await loadZstd();
      return { codec, pack: (records) => Buffer.from(zstd.compress(records, ZSTD_LEVEL)) };
    }
  }
}

/**
 * Unpacks the records of a compressed batch. Throws LOG_CODEC_MISSING for a codec that is not known or does not run here, and whatever the
 * codec throws for bytes that are not its own, or that would unpack into more than `maxBytes`.
 */
export function decompress(codec: number, packed: Buffer, maxBytes = MAX_UNPACKED_BYTES): Buffer {
  switch (NAMES[codec]) {
    case 'gzip':
      return gunzipSync(packed, { maxOutputLength: maxBytes });
    case 'snappy':
      return unsnap(packed, maxBytes);
    case 'lz4':
      return unlz4(packed, maxBytes);
    case 'zstd':
      return unzstd(packed, maxBytes);
    case undefined:
      throw new KafkaError(
        'LOG_CODEC_MISSING',
        `a batch is compressed with codec number ${codec}; gzip, snappy, lz4 and zstd are read. ` +
          'Set compression.type to one of them on the topic and on whoever else writes it.',
        { facts: { codec: `number ${codec}` } },
      );
  }
}

/** Java writes chunks under a header of snappy-java, librdkafka may write one bare block. */
function unsnap(packed: Buffer, maxBytes: number): Buffer {
  const snappy = load<typeof Snappy>('snappy', 'snappy');
  let left = maxBytes;
  const block = (bytes: Buffer): Buffer => {
    // The native code allocates what the block claims, before it looks further.
    left -= snappyLength(bytes);
    if (left < 0) throw tooLong(maxBytes);
    return snappy.uncompressSync(bytes, { asBuffer: true }) as Buffer;
  };
  if (!packed.subarray(0, 8).equals(XERIAL.subarray(0, 8))) return block(packed);
  const chunks: Buffer[] = [];
  for (let at = XERIAL.length; at < packed.length;) {
    const end = at + 4 + packed.readUInt32BE(at);
    if (end > packed.length) throw new RangeError('a snappy chunk ends past its batch');
    chunks.push(block(packed.subarray(at + 4, end)));
    at = end;
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}

/** One chunk for the whole batch: every client that reads snappy reads this framing. */
function xerial(block: Buffer): Buffer {
  const length = Buffer.allocUnsafe(4);
  length.writeUInt32BE(block.length);
  return Buffer.concat([XERIAL, length, block]);
}

function snappyLength(block: Buffer): number {
  let length = 0;
  for (let at = 0, weight = 1; at < 5; at++, weight *= 128) {
    const byte = block.readUInt8(at);
    length += (byte & 127) * weight;
    if (byte < 128) return length;
  }
  throw new RangeError('a snappy block does not begin with its length');
}

/** The native code unpacks as much as there is: it is asked only for what is within the limit. */
function unlz4(packed: Buffer, maxBytes: number): Buffer {
  const lz4 = load<typeof Lz4>('lz4', 'lz4-napi');
  if (lz4Exceeds(packed, maxBytes)) throw tooLong(maxBytes);
  return lz4.decompressFrameSync(packed);
}

/** By the stream's way, because Java's frames do not tell their length. */
function unzstd(packed: Buffer, maxBytes: number): Buffer {
  if (zstdClaimsAbove(packed, maxBytes)) throw tooLong(maxBytes);
  const chunks: Uint8Array[] = [];
  let size = 0;
  const { Decompress } = load<typeof Fzstd>('zstd', 'fzstd');
  new Decompress((chunk) => {
    size += chunk.length;
    if (size > maxBytes) throw tooLong(maxBytes);
    chunks.push(chunk);
  }).push(packed, true);
  return Buffer.concat(chunks, size);
}

function tooLong(maxBytes: number): RangeError {
  return new RangeError(`a batch unpacks into more than ${maxBytes} bytes`);
}

/** Native code is loaded by the first batch that needs it: who uses no compression needs none of it. */
function load<T>(codec: Compression, name: string): T {
  try {
    return require(name) as T;
  } catch (cause) {
    throw missing(codec, name, cause);
  }
}

async function loadZstd(): Promise<{ compress(records: Uint8Array, level: number): Uint8Array }> {
  try {
    const { Zstd } = await import('@hpcc-js/wasm-zstd');
    return await Zstd.load();
  } catch (cause) {
    throw missing('zstd', '@hpcc-js/wasm-zstd', cause);
  }
}

function missing(codec: Compression, name: string, cause: unknown): KafkaError {
  return new KafkaError(
    'LOG_CODEC_MISSING',
    `${codec} needs the package ${name}, which does not load here. Install it for this platform, or set compression.type=gzip on the topic and on whoever writes it.`,
    { cause, facts: { codec } },
  );
}
