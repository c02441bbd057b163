/** What `pg_current_snapshot()` told: which transactions a read sees. */
export interface TxSnapshot {
  readonly xmin: bigint;
  readonly xmax: bigint;
  /** The low 32 bits of the transactions between both that had not ended. */
  readonly running: ReadonlySet<number>;
}

/** Reads `xmin:xmax:xip,xip…`, 64-bit transaction ids. Throws a RangeError on anything else. */
export function parseTxSnapshot(text: string): TxSnapshot {
  const match = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text);
  if (match === null) throw new RangeError(`"${text}" is not a snapshot`);
  const running = match[3] === '' ? [] : match[3]!.split(',');
  return {
    xmin: BigInt(match[1]!),
    xmax: BigInt(match[2]!),
    running: new Set(running.map((xid) => Number(BigInt.asUintN(32, BigInt(xid))))),
  };
}

/** Whether a read with this snapshot sees what the transaction did, or knows that it ended. `xid`: 32 bits, as the stream tells it; at most 2^31 away. */
export function sees({ xmin, xmax, running }: TxSnapshot, xid: number): boolean {
  const ahead = (xid - Number(BigInt.asUintN(32, xmax))) | 0;
  if (ahead >= 0) return false;
  return -ahead > Number(xmax - xmin) || !running.has(xid);
}

/** The one of two that was taken later: what an earlier one sees every later one sees too. */
export function later(a: TxSnapshot, b: TxSnapshot): TxSnapshot {
  if (a.xmax !== b.xmax) return a.xmax > b.xmax ? a : b;
  return a.running.size <= b.running.size ? a : b;
}
