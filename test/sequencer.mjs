import Sequencer from '@jest/test-sequencer';

/**
 * The long ones first, so that no worker ends minutes after the others. The simulation before all: a worker that has run
 * many files holds a heap that makes its millions of small objects costly.
 */
const FIRST = [
  'simulation.spec.ts',
  'transaction-assembler.spec.ts',
  'random-faults.spec.ts',
  'broker-faults.kafka.spec.ts',
  'crash.spec.ts',
  'pressure.kafka.spec.ts',
  'boundaries.spec.ts',
  'hot-path.kafka.spec.ts',
  'standby.kafka.spec.ts',
  'soundness-capture.spec.ts',
  'soak-capture.spec.ts',
];

export default class LongestFirst extends Sequencer {
  async sort(tests) {
    const rank = ({ path }) => {
      const at = FIRST.findIndex((name) => path.endsWith(`/${name}`));
      return at < 0 ? FIRST.length : at;
    };
    return [...(await super.sort(tests))].sort((a, b) => rank(a) - rank(b));
  }
}
