import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';
import {
  errorCode,
  errorMessage,
  silentLogger,
  type Logger,
  type OpenStateStore,
  type StateTask,
} from '@headwater/core';
import { inspectLevel } from './inspect-level.js';
import { LevelStore, type Database } from './level-store.js';
import { locked } from './level-state.errors.js';
import { META, readMeta, writeMeta } from './level-meta.js';

export interface LevelStateOptions {
  /** Where the states lie: one directory per processor and partition below it. Of one process alone: a second one is refused (STATE_LOCKED). */
  readonly directory: string;
  /** How much of a task's state is kept in memory for reading. Raise it when most reads are of entries not written lately. Default 32 MiB. */
  readonly cacheBytes?: number;
  /**
   * How long committed entries may wait in memory for their write. Longer: entries that change often are written less; after a crash that
   * much is read again from the state topic. Default 500.
   */
  readonly flushMs?: number;
  /** Told when a directory is given up, and why. */
  readonly logger?: Logger;
}

export const LEVEL_STATE_DEFAULTS = Object.freeze({ cacheBytes: 32 << 20, flushMs: 500, logger: silentLogger });

/**
 * Keeps the states of tasks on local disk. The directory is a copy of the state topic up to its stamp, never more: whoever opens it reads
 * only what came after. Entries and stamp are one synced LevelDB batch, so a crash, also of the machine, leaves some earlier whole stamp.
 * A directory that is damaged, of another task, another topic of the same name or another format is wiped, and the state is
 * read from the state topic; an older copy of the right directory only catches up.
 */
export function levelState(options: LevelStateOptions): OpenStateStore {
  const { directory, cacheBytes, flushMs, logger } = { ...LEVEL_STATE_DEFAULTS, ...options };
  return async (task) => {
    const place = join(directory, encodeURIComponent(task.processor), String(task.partition));
    await mkdir(place, { recursive: true });
    const found = await inspectLevel(place);
    if (found.condition === 'damaged') {
      logger.warn(`The state in ${place} is damaged (${found.file}). It is read from the state topic again.`);
      await wipe(place);
    }
    let database = await open(place).catch(async (error: unknown) => {
      if (errorCode(error) === 'STATE_LOCKED') throw error;
      logger.warn(
        `The state in ${place} cannot be opened: ${errorMessage(error)}. It is read from the state topic again.`,
      );
      await wipe(place);
      return open(place);
    });
    let meta = readMeta(await database.get(META));
    if (meta !== undefined && !isOf(meta, task)) {
      logger.warn(`The state in ${place} is of another task or topic. It is read from the state topic again.`);
      await database.close();
      await wipe(place);
      database = await open(place);
      meta = undefined;
    }
    meta ??= { ...identityOf(task), stamp: 0, savedAtMs: 0 };
    await database.put(META, writeMeta(meta), { sync: true });
    const reopen = async (old: Database): Promise<Database> => {
      await old.close();
      await wipe(place);
      return open(place);
    };
    return new LevelStore({ place, database, meta, cacheBytes, flushMs, reopen });
  };
}

const identityOf = ({ processor, partition, topicId }: StateTask) => ({ processor, partition, topicId: topicId ?? '' });

function isOf(meta: ReturnType<typeof identityOf>, task: StateTask): boolean {
  const wanted = identityOf(task);
  return meta.processor === wanted.processor && meta.partition === wanted.partition && meta.topicId === wanted.topicId;
}

async function open(place: string): Promise<Database> {
  // Uncompressed, so that every block can be checked; large files, so that there are few.
  const settings = { compression: false, writeBufferSize: 16 << 20, maxFileSize: 16 << 20, blockSize: 8_192 };
  const database: Database = new ClassicLevel(place, { ...settings, keyEncoding: 'utf8', valueEncoding: 'buffer' });
  await asOwner(place, () => database.open());
  return database;
}

/** LevelDB's own removal takes its lock: a living owner keeps its files. */
async function wipe(place: string): Promise<void> {
  await asOwner(place, () => ClassicLevel.destroy(place));
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
}

async function asOwner(place: string, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    const texts = [error, (error as { cause?: unknown }).cause] as { code?: string; message?: string }[];
    if (texts.some((of) => of?.code === 'LEVEL_LOCKED' || /\bLOCK\b/.test(of?.message ?? '')))
      throw locked(place, error);
    throw error;
  }
}
