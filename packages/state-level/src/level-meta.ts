/** Sorts before every entry of a state: their names begin with a letter. */
export const META = '!';
const FORMAT = 1;

/** Whose copy a directory is, and up to where. */
export interface LevelMeta {
  readonly processor: string;
  readonly partition: number;
  /** Changes when the state topic is deleted and made again. */
  readonly topicId: string;
  readonly stamp: number;
  /** Milliseconds since 1970; 0: never. */
  readonly savedAtMs: number;
}

export function writeMeta(meta: LevelMeta): Buffer {
  return Buffer.from(JSON.stringify({ format: FORMAT, ...meta }));
}

/** Undefined: a fresh directory. One of another format is of nobody: its partition is -1. */
export function readMeta(bytes: Buffer | undefined): LevelMeta | undefined {
  if (bytes === undefined) return undefined;
  const { format, ...meta } = JSON.parse(bytes.toString('utf8')) as LevelMeta & { format: number };
  return format === FORMAT ? meta : { ...meta, partition: -1 };
}
