import { HeadwaterError } from '@headwater/core';

export function locked(directory: string, cause: unknown): HeadwaterError {
  return new HeadwaterError(
    'STATE_LOCKED',
    `another process has the state in ${directory} open. It is tried again; give each process a directory of its own.`,
    { retryable: true, cause, facts: { directory } },
  );
}

export function diskFailed(directory: string, cause: unknown): HeadwaterError {
  return new HeadwaterError(
    'STATE_DISK_FAILED',
    `the state in ${directory} cannot be written. Free or mend the disk, then restart this process; nothing is lost, the log has it.`,
    { cause, facts: { directory } },
  );
}
