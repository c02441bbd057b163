import { randomBytes } from 'node:crypto';

/** A name that no other call, process or run uses; fit for topics, groups, databases, slots and publications. */
export function uniqueName(prefix: string): string {
  return `${prefix}_${Date.now().toString(36)}${randomBytes(4).toString('hex')}`;
}
