import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endOrphan, readPidFile, writePidFile } from './pid-file.js';
import { identify } from './process-identity.js';

let directory: string;
let file: string;
let child: ChildProcess;
const dead = { pid: 1, startTime: 'before the flood' };

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'headwater-pid-'));
  file = join(directory, 'server.pid');
  child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
});

afterEach(() => {
  child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

it('ends a server whose parent is gone, and forgets it', async () => {
  writeFileSync(file, JSON.stringify({ ...identify(child.pid ?? 0), owner: dead }));
  expect(await endOrphan(file, { signal: 'SIGTERM' })).toBe('ended');
  expect(identify(child.pid ?? 0)).toBeUndefined();
  expect(existsSync(file)).toBe(false);
});

it('leaves a process alone that only has the same pid', async () => {
  writeFileSync(file, JSON.stringify({ pid: child.pid, startTime: '1', owner: dead }));
  expect(await endOrphan(file, { signal: 'SIGKILL' })).toBe('none');
  expect(identify(child.pid ?? 0)).toBeDefined();
});

it('refuses a server whose parent still lives', async () => {
  writePidFile(file, child.pid ?? 0);
  expect(readPidFile(file)).toMatchObject({ pid: child.pid, owner: { pid: process.pid } });
  await expect(endOrphan(file, { signal: 'SIGTERM' })).rejects.toThrow(/SERVICES_IN_USE.*still running/);
  expect(identify(child.pid ?? 0)).toBeDefined();
});
