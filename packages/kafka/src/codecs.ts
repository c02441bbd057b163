import { gunzipSync } from 'node:zlib';
import { KafkaError } from './kafka.errors.js';

const CODEC_NAMES: Readonly<Record<number, string>> = { 1: 'gzip', 2: 'snappy', 3: 'lz4', 4: 'zstd' };

/** Unpacks the records of a compressed batch. Only gzip needs no native package, so only gzip is built in. */
export function decompress(codec: number, packed: Buffer): Buffer {
  if (codec === 1) return gunzipSync(packed);
  const name = CODEC_NAMES[codec] ?? `number ${codec}`;
  throw new KafkaError(
    'LOG_CODEC_MISSING',
    `a batch is compressed with ${name}, and only gzip and uncompressed batches are read. ` +
      'Set compression.type=gzip (or uncompressed) on the topic and on whoever else writes it.',
    { facts: { codec: name } },
  );
}
