import { ByteReader, ByteWriter } from '../bytes.js';

/** One request at one version: how its body is written and its answer read. Error codes are answers, never exceptions. */
export interface Call<T> {
  readonly apiKey: number;
  readonly apiName: string;
  readonly apiVersion: number;
  readonly timeoutMs?: number;
  /** About how many bytes the body takes, when that is many. */
  readonly capacity?: number;
  encode(body: ByteWriter): void;
  decode(payload: Buffer): T;
}

export interface Answer {
  readonly error: number;
}

/** Kafka's numbers for the two kinds of coordinator. */
export const GROUP = 0;
export const TRANSACTION = 1;
export type CoordinatorType = typeof GROUP | typeof TRANSACTION;

/**
 * All versions used are flexible: their request header ends with a tag section, which begins the body here; their response header
 * ends with a tag section. Only ApiVersions answers with the old header, so that any client understands it.
 */
export function flexible<T>(
  apiKey: number,
  apiName: string,
  apiVersion: number,
  write: (body: ByteWriter) => void,
  read: (answer: ByteReader) => T,
  extra: { readonly timeoutMs?: number; readonly capacity?: number; readonly plainHeader?: true } = {},
): Call<T> {
  return {
    apiKey,
    apiName,
    apiVersion,
    timeoutMs: extra.timeoutMs,
    capacity: extra.capacity,
    encode: (body) => write(body.tags()),
    decode(payload) {
      const answer = new ByteReader(payload);
      if (!extra.plainHeader) answer.tags();
      return read(answer);
    },
  };
}

/** Items of one topic together, as every request wants them, in order of first appearance. */
function byTopic<T extends { readonly topic: string }>(items: readonly T[]): [topic: string, items: T[]][] {
  const topics = new Map<string, T[]>();
  for (const item of items) {
    const known = topics.get(item.topic);
    if (known === undefined) topics.set(item.topic, [item]);
    else known.push(item);
  }
  return [...topics];
}

export function writeTopics<T extends { readonly topic: string }>(
  body: ByteWriter,
  items: readonly T[],
  write: (item: T) => void,
  writeName: (topic: string) => ByteWriter = (topic) => body.compactString(topic),
): ByteWriter {
  return body.compactArray(byTopic(items), ([topic, of]) => {
    writeName(topic).compactArray(of, write).tags();
  });
}

export function readTopics<T>(
  answer: ByteReader,
  read: (topic: string) => T,
  readName: () => string = () => answer.compactString() ?? '',
): T[] {
  const topics = answer.compactArray(() => {
    const topic = readName();
    const items = answer.compactArray(() => read(topic));
    answer.tags();
    return items;
  });
  return topics.flat();
}

export const readError = (answer: ByteReader): Answer => {
  answer.int32(); // throttle time
  return { error: answer.int16() };
};
