import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { identify, isAlive, type ProcessIdentity } from './process-identity.js';
import { ServicesError } from './testing.errors.js';

export interface PidRecord extends ProcessIdentity {
  /** Whoever started the server; while it lives the server is no orphan. */
  readonly owner: ProcessIdentity;
}

export function writePidFile(file: string, pid: number): void {
  const server = identify(pid);
  const owner = identify(process.pid);
  if (!server || !owner) return;
  const record: PidRecord = { ...server, owner };
  // Renamed into place: a half-written file after a crash would hide an orphan.
  writeFileSync(`${file}.new`, JSON.stringify(record));
  renameSync(`${file}.new`, file);
}

export function readPidFile(file: string): PidRecord | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as PidRecord;
  } catch {
    return undefined;
  }
}

/**
 * Ends the server that a killed parent left behind, politely first, and removes the pid file. A recycled pid is left alone;
 * a server whose parent still lives is refused, since two owners would ruin its data.
 */
export async function endOrphan(
  file: string,
  { signal, graceMs = 10_000 }: { readonly signal: NodeJS.Signals; readonly graceMs?: number },
): Promise<'none' | 'ended'> {
  const record = readPidFile(file);
  if (record && isAlive(record)) {
    if (isAlive(record.owner)) {
      throw new ServicesError(
        'SERVICES_IN_USE',
        `${file} belongs to process ${record.owner.pid}, which is still running. Stop it, or use another directory.`,
      );
    }
    await endProcess(record, { signal, graceMs });
    rmSync(file, { force: true });
    return 'ended';
  }
  rmSync(file, { force: true });
  return 'none';
}

/** Signals, waits, and after `graceMs` kills; resolves when the process is gone. */
export async function endProcess(
  target: ProcessIdentity,
  { signal, graceMs }: { readonly signal: NodeJS.Signals; readonly graceMs: number },
): Promise<void> {
  if (!isAlive(target)) return;
  send(target.pid, signal);
  const deadline = performance.now() + graceMs;
  let killed = false;
  while (isAlive(target)) {
    if (!killed && performance.now() > deadline) {
      killed = true;
      send(target.pid, 'SIGKILL');
    }
    await delay(20);
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
