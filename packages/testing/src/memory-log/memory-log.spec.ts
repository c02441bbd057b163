import { afterAll } from '@jest/globals';
import { describeLog, type LossyLog } from '../log-suite/log-suite.js';
import type { LogCall } from './connection.js';
import { memoryLog } from './memory-log.js';

const memory = memoryLog();
afterAll(() => memory.close());

/** Loses what ends a transaction. */
function lossy(): LossyLog {
  let lost: 'request' | 'answer' | 'nothing' = 'nothing';
  const ends = ({ request }: LogCall) => request === 'commit' || request === 'abort';
  const { log } = memory.client({
    requestTimeoutMs: 100,
    fault: (call) => (lost !== 'nothing' && ends(call) ? { act: `lose-${lost}` } : undefined),
  });
  return { log, lose: (what) => void (lost = what) };
}

describeLog('memoryLog', { open: () => memory.client().log, openLossy: lossy });
