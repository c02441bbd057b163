import { describe, expect, it } from '@jest/globals';
import { WiringError } from '../errors/headwater.error.js';
import { Changelog, Event, Key, type MessageClass } from '../model/model.js';
import { On } from '../model/on.js';
import type { Features } from '../module/engine.js';
import { wire } from '../module/wiring.js';
import { processors } from './engine.js';
import { OnTimer, Processor } from './processor.js';

@Event({ topic: 'orders' })
class Ordered {
  @Key()
  id!: string;
}
@Changelog({ topic: 'customers' })
class Customer {
  @Key()
  id!: string;
}
class Plain {
  id!: string;
}
@Processor({ name: 'counts', version: 1, tables: [Customer] })
class Counts {
  @On(Ordered)
  ordered() {}
  @OnTimer()
  due() {}
}
@Processor({ name: 'counts', version: 1 })
class SameCounts {
  @On(Ordered)
  ordered() {}
}
@Processor({ name: 'Bad.Name', version: 1, tables: [Ordered, Plain] })
class BadCounts {
  @On(Plain)
  plain() {}
  @On(Ordered)
  first() {}
  @On(Ordered)
  second() {}
  @OnTimer()
  due() {}
  @OnTimer()
  dueToo() {}
}
@Processor({ name: 'idle', version: 1 })
class Idle {}

@Processor({ name: 'special-counts', version: 1 })
class SpecialCounts extends Counts {
  @On(Ordered)
  override ordered() {}
  @OnTimer()
  override due() {}
}

const features = (classes: readonly MessageClass[], provided = true): Features => ({
  classes,
  instanceOf: (type) => (provided ? new (type as new () => object)() : undefined),
});

function mistakesOf(of: Features): readonly string[] {
  try {
    wire([processors()], of, 3);
  } catch (error) {
    if (error instanceof WiringError) return error.mistakes;
    throw error;
  }
  return [];
}

describe('wiring of processors', () => {
  it('makes the topics of each', () => {
    const { topics, plans } = wire([processors()], features([Ordered, Customer, Counts]), 3);
    const forEver = { cleanupPolicy: 'delete', partitions: 3, config: { 'retention.ms': '-1' } };
    expect(topics).toEqual([
      { topic: 'orders', ...forEver },
      { topic: 'customers', cleanupPolicy: 'compact', partitions: 3 },
      { topic: 'headwater.counts.state', cleanupPolicy: 'compact', partitions: 3 },
      { topic: 'headwater.counts.parked', ...forEver },
      { topic: 'headwater.counts.control', ...forEver },
    ]);
    expect(plans.flatMap(({ parts }) => parts.map(({ role }) => role))).toEqual(['processors']);
  });

  it('lets a class override what it inherits', () => {
    expect(mistakesOf(features([Ordered, Customer, SpecialCounts]))).toEqual([]);
  });

  it('reports every mistake together, each with its remedy', () => {
    expect(mistakesOf(features([Ordered, Customer, Counts, SameCounts, BadCounts, Idle]))).toEqual([
      'Processors Counts and SameCounts are both named "counts". Give one another name.',
      'Processor BadCounts: name "Bad.Name" must be lower-case letters, digits and dashes.',
      'Processor BadCounts: due and dueToo both have @OnTimer(). Keep one; the id tells timers apart.',
      'Processor BadCounts.plain: Plain has no @Changelog, @Event or @Command, so its topic is unknown. Decorate it.',
      'Processor BadCounts: first and second both handle Ordered. Keep one.',
      'Processor BadCounts: its table Ordered is not a @Changelog. Decorate it.',
      'Processor BadCounts: its table Plain is not a @Changelog. Decorate it.',
      'Processor Idle has no @On(…) method. Add one, or remove the class.',
    ]);
  });

  it('refuses topics that no feature declares, and a class that is no provider', () => {
    expect(mistakesOf(features([Counts], false))).toEqual([
      'Processor Counts.ordered: the topic of Ordered is unknown. Add it to a forFeature([...]).',
      'Processor Counts: the topic of its table Customer is unknown. Add it to a forFeature([...]).',
      'Processor Counts is not a provider. Pass it to HeadwaterModule.forFeature([...]).',
    ]);
  });
});
