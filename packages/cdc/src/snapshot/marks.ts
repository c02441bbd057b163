/** A mark in the WAL at one side of a read. */
export interface Mark {
  readonly capture: string;
  /** Of one life of a connection: marks of another life open and close nothing. */
  readonly life: string;
  readonly window: number;
  readonly side: 'low' | 'high';
}

export function markContent({ capture, life, window, side }: Mark): string {
  return JSON.stringify([capture, life, window, side]);
}

/** Undefined: not a mark. Any role may write such a message, so that nothing about its content is certain. */
export function parseMark(content: Buffer): Mark | undefined {
  try {
    const [capture, life, window, side] = JSON.parse(content.toString()) as unknown[];
    if (typeof capture !== 'string' || typeof life !== 'string' || typeof window !== 'number') return undefined;
    return side === 'low' || side === 'high' ? { capture, life, window, side } : undefined;
  } catch {
    return undefined;
  }
}
