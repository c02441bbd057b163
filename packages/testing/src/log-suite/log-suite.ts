import { afterAll, beforeAll, describe } from '@jest/globals';
import { adminCases } from './admin.cases.js';
import { fencingCases } from './fencing.cases.js';
import { groupCases } from './group.cases.js';
import { Bench, type LogUnderTest } from './log-under-test.js';
import { readerCases } from './reader.cases.js';
import { writerCases } from './writer.cases.js';

export type { LogUnderTest, LossyLog } from './log-under-test.js';

/**
 * The driver suite: what every implementation of the Log port must do, in the same words for all of them. Call it in a jest spec. It needs
 * a log that nobody shuts down meanwhile; topics, groups and ids are its own, so it can be run beside others and again.
 */
export function describeLog(name: string, under: LogUnderTest): void {
  describe(`${name} as a Log`, () => {
    const bench = new Bench(under);
    beforeAll(() => bench.start());
    afterAll(() => bench.close());
    describe('writer', () => writerCases(bench));
    describe('fencing', () => fencingCases(bench));
    describe('reader', () => readerCases(bench));
    describe('group', () => groupCases(bench));
    describe('admin', () => adminCases(bench));
  });
}
