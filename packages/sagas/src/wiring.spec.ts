import { describe, expect, it } from '@jest/globals';
import { Command, Event, Key, WiringError, wire, type Features, type MessageClass } from '@headwater/core';
import { durationMs } from './compile.js';
import { sagas } from './engine.js';
import { CommandHandler } from './participant.js';
import { Pivot, Retriable, Saga, Step, Undo } from './saga.js';

@Event({ topic: 'started' })
class Started {
  @Key()
  id!: string;
}
@Command({ topic: 'work' })
class Work {
  @Key()
  id!: string;
}
@Command({ topic: 'work' })
class Orphan {
  @Key()
  id!: string;
}
class Plain {
  id!: string;
}
@Event({ topic: 'unlisted' })
class Unlisted {
  @Key()
  id!: string;
}
class Worker {
  @CommandHandler(Work)
  work() {}
}
const command = () => new Work();

@Saga({ name: 'good', startedBy: Started, deadline: '30s', version: 1 })
class GoodSaga {
  @Step(Work)
  first() {
    return command();
  }
}
@Saga({ name: 'good', startedBy: Started, version: 1 })
class NamesakeSaga {
  @Step(Work)
  first() {
    return command();
  }
}
@Saga({ name: 'Bad Name', startedBy: Started, deadline: 'soon', version: 1 })
class BadSaga {
  @Pivot(Work)
  decide() {
    return command();
  }
  @Pivot(Work)
  decideAgain() {
    return command();
  }
  @Step(Orphan)
  late() {
    return command();
  }
  @Retriable(Plain)
  finish() {
    return command();
  }
  @Undo('nothing', Work)
  undoNothing() {
    return command();
  }
  @Undo('decide', Work)
  undoDecide() {
    return command();
  }
}
@Saga({ name: 'empty', startedBy: Plain, version: 1 })
class EmptySaga {}
@Saga({ name: 'lost', startedBy: Unlisted, version: 1 })
class LostSaga {
  @Step(Work)
  first() {
    return command();
  }
}

function features(classes: readonly MessageClass[], notProvided: readonly MessageClass[] = []): Features {
  return {
    classes,
    instanceOf: (type) => {
      if (notProvided.includes(type)) return undefined;
      return new (type as new () => object)();
    },
  };
}

function mistakesOf(of: Features): readonly string[] {
  try {
    wire([sagas()], of, 1);
  } catch (error) {
    if (error instanceof WiringError) return error.mistakes;
    throw error;
  }
  return [];
}

describe('wiring of sagas', () => {
  it('accepts a sound saga and plans its topics and parts', () => {
    const wiring = wire([sagas()], features([Started, Work, Worker, GoodSaga]), 3);
    expect(wiring.topics.map(({ topic, cleanupPolicy, partitions }) => [topic, cleanupPolicy, partitions])).toEqual([
      ['started', 'delete', 3],
      ['work', 'delete', 3],
      ['headwater.saga.good.state', 'compact', 3],
      ['headwater.saga.good.parked', 'delete', 3],
      ['headwater.saga.good.control', 'delete', 3],
      ['headwater.saga.good', 'compact', 3],
      ['headwater.saga.good.replies', 'delete', 3],
    ]);
    expect(wiring.plans[0]!.parts.map((part) => part.role)).toEqual(['processors', 'processors', 'projections']);
  });

  it('reports every mistake of a saga together, each with its remedy', () => {
    expect(mistakesOf(features([Started, Work, Orphan, Worker, BadSaga, EmptySaga, LostSaga], [EmptySaga]))).toEqual([
      'Saga BadSaga: name "Bad Name" must be lower-case letters, digits and dashes.',
      'Saga BadSaga: deadline "soon" is not a duration. Write 500ms, 30s, 5m, 2h or 1d.',
      'Saga BadSaga: decide and decideAgain are both pivots. Keep one.',
      'Saga BadSaga: late (compensable) stands after decideAgain (pivot). Order: steps, one pivot, retriables.',
      "Saga BadSaga: @Undo('nothing') names no step. Steps are: decide, decideAgain, late, finish.",
      "Saga BadSaga: @Undo('decide') would take back a pivot step. Only steps before the pivot are undone.",
      'Saga BadSaga: late sends Orphan, which nothing handles. Add a @CommandHandler(Orphan) to a participant.',
      'Saga BadSaga: finish sends Plain, which is not a @Command. Decorate it.',
      'Saga EmptySaga: Plain is not an @Event. A saga is started by an event.',
      'Saga EmptySaga: it has no steps. Add a method with @Step, @Pivot or @Retriable.',
      'Saga EmptySaga: it is not a provider. Pass it to HeadwaterModule.forFeature([...]).',
      'Saga LostSaga: its start event Unlisted is unknown. Add it to a forFeature([...]).',
    ]);
  });

  it('refuses two sagas of one name, two handlers of one command and a handler of no command', () => {
    class Second {
      @CommandHandler(Work)
      again() {}
      @CommandHandler(Plain)
      plain() {}
      @CommandHandler(Orphan)
      unlisted() {}
    }
    expect(mistakesOf(features([Started, Work, Worker, Second, GoodSaga, NamesakeSaga]))).toEqual([
      'Second.again and Worker.work both handle Work. Keep one.',
      'Second.plain handles Plain, which is not a @Command. Decorate it.',
      'Second.unlisted handles Orphan, whose topic is unknown. Add it to a forFeature([...]).',
      'Sagas GoodSaga and NamesakeSaga are both named "good". Give one another name.',
    ]);
  });

  it('refuses a message without a key', () => {
    @Command({ topic: 'keyless' })
    class Keyless {
      id!: string;
    }
    expect(mistakesOf(features([Keyless]))).toEqual([
      'Keyless has no key. Decorate the property that identifies it with @Key().',
    ]);
  });

  it('reads durations and nothing else', () => {
    expect(['500ms', '30s', '5m', '2h', '1d'].map(durationMs)).toEqual([500, 30_000, 300_000, 7_200_000, 86_400_000]);
    for (const text of ['', '5', '5 s', '-1s', '1.5h', '1w', 's']) expect(durationMs(text)).toBeUndefined();
  });
});
