import { describe, expect, it } from '@jest/globals';
import { WiringError } from '../errors/headwater.error.js';
import { Changelog, Event, Key, type MessageClass } from '../model/model.js';
import { compacted, keptForEver, type Engine, type EnginePlan } from './engine.js';
import { wire } from './wiring.js';

@Event({ topic: 'facts' })
class Fact {
  @Key()
  id!: string;
}
@Event({ topic: 'facts', type: 'Fact' })
class OtherFact {
  @Key()
  id!: string;
}
@Changelog({ topic: 'facts' })
class Keyless {
  id!: string;
}

const engine = (name: string, plan: Partial<EnginePlan>): Engine => ({
  name,
  plan: () => ({ mistakes: [], topics: [], ddl: [], parts: [], ...plan }),
});
const features = (...classes: readonly MessageClass[]) => ({ classes, instanceOf: () => undefined });

describe('wire', () => {
  it('merges the topics and the DDL of all engines, with the default partitions where none are given', () => {
    const one = engine('one', {
      topics: [compacted('state'), { ...compacted('position'), partitions: 1 }],
      ddl: ['A'],
    });
    const two = engine('two', { topics: [compacted('state'), keptForEver('facts')], ddl: ['B'] });
    const wiring = wire([one, two], features(Fact), 7);
    expect(wiring.topics).toEqual([
      { topic: 'facts', partitions: 7, cleanupPolicy: 'delete', config: { 'retention.ms': '-1' } },
      { topic: 'state', partitions: 7, cleanupPolicy: 'compact' },
      { topic: 'position', partitions: 1, cleanupPolicy: 'compact' },
    ]);
    expect(wiring.ddl).toEqual(['A', 'B']);
  });

  it('reports the mistakes of models, engines and topics in one error', () => {
    const one = engine('one', { mistakes: ['One is wrong. Mend it.'] });
    const two = engine('two', {
      mistakes: ['Two is wrong. Mend it.'],
      topics: [{ ...keptForEver('facts'), partitions: 9 }],
    });
    let caught: unknown;
    try {
      wire([one, two], features(Fact, OtherFact, Keyless), 1);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(WiringError);
    expect(caught).toMatchObject({
      code: 'WIRING_INVALID',
      retryable: false,
      mistakes: [
        'OtherFact and Fact are both "Fact" on topic facts. Give one of them another type.',
        'Keyless has no key. Decorate the property that identifies it with @Key().',
        'One is wrong. Mend it.',
        'Two is wrong. Mend it.',
        'Topic facts is wanted both as delete with 1 partitions and as compact with 1 partitions. State and events need topics of their own.',
        'Topic facts is wanted both as delete with 1 partitions and as delete with 9 partitions. State and events need topics of their own.',
      ],
    });
  });
});
