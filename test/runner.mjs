import TestRunner from 'jest-runner';

/**
 * These mostly wait: for brokers that are away, for time itself. A worker of their own runs them beside the others. None belongs here whose
 * time limits leave no room for a busy machine.
 */
const BESIDE = ['random-faults.spec.ts', 'slow-handler.kafka.spec.ts', 'broker-faults.kafka.spec.ts'];

const waits = ({ path }) => BESIDE.some((name) => path.endsWith(`/${name}`));

export default class WaitingBeside extends TestRunner {
  #beside;

  constructor(globalConfig, context) {
    super(globalConfig, context);
    this.#beside = new TestRunner({ ...globalConfig, maxWorkers: 1 }, context);
  }

  async runTests(tests, watcher, options) {
    const waiting = tests.filter(waits);
    const others = tests.filter((test) => !waits(test));
    if (options.serial || others.length === 0) return super.runTests(tests, watcher, options);
    // Both to their end: a run that is interrupted tells so only when nothing of it goes on.
    const ends = await Promise.allSettled([
      super.runTests(others, watcher, options),
      waiting.length > 0 ? this.#beside.runTests(waiting, watcher, options) : undefined,
    ]);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  on(event, listener) {
    const ends = [super.on(event, listener), this.#beside.on(event, listener)];
    return () => ends.forEach((end) => end());
  }
}
