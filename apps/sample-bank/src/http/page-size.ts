import { Problem } from './problem.js';

/** A page size from a query parameter: 1 to 500. */
export function pageSize(text: string | undefined, whenAbsent: number): number {
  const size = text === undefined ? whenAbsent : Number(text);
  if (!Number.isInteger(size) || size < 1 || size > 500)
    throw new Problem(400, 'invalid-limit', 'limit must be a whole number from 1 to 500.');
  return size;
}
