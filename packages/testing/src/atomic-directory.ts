import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { uniqueName } from './unique-name.js';

/**
 * Builds a directory aside and renames it into place, so that it is either complete or absent. When another process wins the
 * race its result is kept; both are equal.
 */
export async function atomicDirectory(path: string, build: (temporary: string) => Promise<void>): Promise<void> {
  if (existsSync(path)) return;
  mkdirSync(dirname(path), { recursive: true });
  const temporary = uniqueName(`${path}.tmp`);
  mkdirSync(temporary);
  try {
    await build(temporary);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    if (!existsSync(path)) throw error;
  }
}
