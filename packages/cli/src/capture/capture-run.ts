import { HeadwaterError, systemClock } from '@headwater/core';
import type { Clock, Log } from '@headwater/core';
import { Capture, SlotWatch } from '@headwater/cdc';
import type { CaptureLogger } from '@headwater/cdc';
import type { CaptureSettings } from './capture-config.js';
import { captureStats } from './capture-stats.js';
import type { CaptureStats } from './capture-stats.js';

export interface CaptureRun {
  readonly captures: readonly CaptureSettings[];
  readonly log: Log;
  readonly logger: CaptureLogger;
  /** Aborted by the signals of the process. */
  readonly signal: AbortSignal;
  /** Told once a second, and once more at the end. */
  readonly onStats?: (stats: CaptureStats) => void;
  readonly clock?: Clock;
}

const STATS_MS = 1_000;
/** Within the 5 s after which supervisors kill. What is not published by then comes again at the next start. */
const STOP_MS = 4_000;

/**
 * Runs all captures of a file until they have finished (`only`), one of them halts, or the signal stops them. One halt stops them all: a
 * supervisor sees it, and the others go on where they were at the next start. Rejects with the halt.
 */
export async function runCaptures(run: CaptureRun): Promise<void> {
  const { clock = systemClock, signal, logger } = run;
  const over = new AbortController();
  const running = run.captures.map((settings) => {
    const capture = new Capture({ ...settings, log: run.log, logger, clock });
    const watch = new SlotWatch({ ...settings, logger, clock });
    return { name: settings.name, capture, watch };
  });
  const several = running.length > 1;
  const figures = running.map(({ name, capture, watch }) =>
    captureStats(several ? name : undefined, capture, watch, clock),
  );
  const tell = () => figures.forEach((of) => run.onStats?.(of()));
  for (const { watch } of running) watch.start();
  const telling = every(STATS_MS, clock, over.signal, tell);
  for (const { capture } of running) void capture.start().catch(() => undefined); // `finished` tells
  const finished = Promise.all(running.map(({ capture }) => capture.finished));
  const [ended] = await Promise.allSettled([Promise.race([finished, aborted(signal)])]);
  const stopped = Promise.all(running.map(({ capture }) => capture.stop()));
  const drained = await Promise.race([stopped.then(() => true), clock.wait(STOP_MS, over.signal).then(() => false)]);
  // Also the wait above: its timer would keep the process for the rest of it.
  over.abort();
  await Promise.all([telling, ...running.map(({ watch }) => watch.stop())]);
  tell();
  if (ended.status === 'rejected') throw ended.reason;
  if (!drained) throw notDrained();
}

function notDrained(): HeadwaterError {
  return new HeadwaterError(
    'CLI_NOT_DRAINED',
    `capture did not end within ${STOP_MS} ms: Kafka or PostgreSQL does not answer. Nothing is lost or doubled: what was in flight comes again at the next start.`,
  );
}

async function every(ms: number, clock: Clock, signal: AbortSignal, work: () => void): Promise<void> {
  for (let next = clock.elapsed() + ms; ; next += ms) {
    await clock.wait(Math.max(0, next - clock.elapsed()), signal);
    if (signal.aborted) return;
    work();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Lines for a person, or one line of JSON each. */
export function lineLogger(json: boolean, line: (text: string) => void): CaptureLogger {
  const say = (level: 'info' | 'warn') => (message: string) =>
    line(json ? JSON.stringify({ at: new Date().toISOString(), level, message }) : message);
  return { info: say('info'), warn: say('warn') };
}
