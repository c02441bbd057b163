import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { liveFiles } from './level-manifest.js';
import { readLog } from './level-log.js';
import { isTableIntact } from './level-table.js';

/**
 * What is in a LevelDB directory that nobody has open: `absent`, `intact`, or `damaged` with the file to blame. LevelDB itself skips
 * damaged parts of its log and checks no block it reads; here every live byte is compared with its stored checksum. Only reads.
 */
export type LevelCondition =
  { readonly condition: 'absent' | 'intact' } | { readonly condition: 'damaged'; readonly file: string };

export async function inspectLevel(directory: string): Promise<LevelCondition> {
  const names = await namesIn(directory);
  if (!names.includes('CURRENT')) return { condition: 'absent' };
  const manifest = (await readFile(join(directory, 'CURRENT'), 'utf8')).trim();
  if (!/^MANIFEST-\d+$/.test(manifest) || !names.includes(manifest)) return damaged('CURRENT');
  const { records, end } = readLog(await readFile(join(directory, manifest)));
  // A manifest is synced before it counts: no crash cuts it, and a shorter one would name other files.
  const live = end === 'whole' ? filesOf(records) : undefined;
  if (live === undefined) return damaged(manifest);
  for (const name of names.filter((each) => /^\d+\.log$/.test(each) && parseInt(each, 10) >= live.logNumber))
    if (readLog(await readFile(join(directory, name))).end === 'damaged') return damaged(name);
  for (const [number, size] of live.tables) {
    const name = names.find((each) => /^\d+\.(ldb|sst)$/.test(each) && parseInt(each, 10) === number);
    if (name === undefined) return damaged(`${number}.ldb`);
    const file = await readFile(join(directory, name));
    if (file.length !== size || !isTableIntact(file)) return damaged(name);
  }
  return { condition: 'intact' };
}

const damaged = (file: string): LevelCondition => ({ condition: 'damaged', file });

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return [];
    throw error;
  }
}

function filesOf(edits: readonly Buffer[]): ReturnType<typeof liveFiles> | undefined {
  try {
    return liveFiles(edits);
  } catch (error) {
    if ((error as Error).name === 'RangeError') return undefined;
    throw error;
  }
}
