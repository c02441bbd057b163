import { errorCode, errorMessage, HeadwaterError } from '@headwater/core';
import { CaptureError } from '../cdc.errors.js';

/** What a person must mend: the directory is wrong, or may not be used. */
const UNUSABLE: ReadonlySet<string> = new Set([
  'EACCES',
  'EISDIR',
  'ENAMETOOLONG',
  'ENOENT',
  'ENOTDIR',
  'EPERM',
  'EROFS',
]);

/** An error of the file system, or of a file that is not what was written. */
export function spoolFailed(error: unknown, path: string): HeadwaterError {
  if (error instanceof HeadwaterError) return error;
  const lost = 'Nothing of it was published or acknowledged: PostgreSQL sends it again';
  if (UNUSABLE.has(errorCode(error) ?? '')) {
    const message = `streamed transactions cannot be kept at ${path}: ${errorMessage(error)}. ${lost}. Give spoolDirectory a directory that capture may write to, then start capture again.`;
    return new CaptureError('CDC_SPOOL_UNUSABLE', message, { path }, error);
  }
  const message = `a streamed transaction cannot be kept at ${path}: ${errorMessage(error)}. ${lost}, each transaction whole at its commit until capture connects anew. Give spoolDirectory more room.`;
  return new CaptureError('CDC_SPOOL_FAILED', message, { path }, error);
}
