import type { Clock } from '@headwater/core';
import type { Capture, CaptureState, SlotWatch } from '@headwater/cdc';

/** One line of `--stats`. */
export interface CaptureStats {
  /** With several captures in one process. */
  readonly capture?: string;
  /** Published since the start of the process. */
  readonly rows: number;
  /** Over the time since the line before. */
  readonly rowsPerSecond: number;
  /** WAL written and not published; null while the server does not answer. */
  readonly lagBytes: number | null;
  /** Age of the oldest change that is not published, to about a second; null before the server has answered once. */
  readonly lagMs: number | null;
  /** Of the whole process. */
  readonly rssBytes: number;
  readonly state: CaptureState;
}

/** A function that gives the figures since its last call. */
export function captureStats(
  name: string | undefined,
  capture: Capture,
  watch: SlotWatch,
  clock: Clock,
): () => CaptureStats {
  let [rowsBefore, before] = [0, clock.elapsed()];
  return () => {
    const { rows, state, endLsn } = capture.status();
    const now = clock.elapsed();
    const rowsPerSecond = now === before ? 0 : Math.round(((rows - rowsBefore) * 1000) / (now - before));
    [rowsBefore, before] = [rows, now];
    const { lagBytes, lagMs } = watch.watched(endLsn);
    return {
      ...(name === undefined ? {} : { capture: name }),
      rows,
      rowsPerSecond,
      lagBytes: lagBytes ?? null,
      lagMs: lagMs === undefined ? null : Math.round(lagMs),
      rssBytes: process.memoryUsage.rss(),
      state,
    };
  };
}
