import { describe, expect, it } from '@jest/globals';
import { Changelog, Key, On, WiringError, wire, type Features, type MessageClass } from '@headwater/core';
import { projections } from './engine.js';
import { Projection } from './projection.js';

@Changelog({ topic: 'accounts' })
class Account {
  @Key()
  id!: string;
}
class Plain {
  id!: string;
}
@Projection({ name: 'balances', version: 1, columns: { id: 'text' } })
class Balances {
  @On(Account)
  account() {
    return undefined;
  }
}
@Projection({ name: 'balances', version: 1, columns: { id: 'text' } })
class SameBalances {
  @On(Account)
  account() {
    return undefined;
  }
}
@Projection({ name: 'balances', version: 2, columns: { id: 'text', cents: 'bigint' }, indexes: [['cents']] })
class NextBalances {
  @On(Account)
  account() {
    return undefined;
  }
}
@Projection({ name: 'Bad-Name', version: 1, columns: { id: 'text' }, key: ['number'] })
class BadBalances {
  @On(Plain)
  plain() {
    return undefined;
  }
}
@Projection({ name: 'idle', version: 1, columns: { id: 'text' } })
class Idle {}

const features = (classes: readonly MessageClass[], provided = true): Features => ({
  classes,
  instanceOf: (type) => (provided ? new (type as new () => object)() : undefined),
});

function mistakesOf(of: Features): readonly string[] {
  try {
    wire([projections()], of, 1);
  } catch (error) {
    if (error instanceof WiringError) return error.mistakes;
    throw error;
  }
  return [];
}

describe('wiring of projections', () => {
  it('accepts two versions side by side, each with a table of its own', () => {
    const wiring = wire([projections()], features([Account, Balances, NextBalances]), 1);
    expect(wiring.ddl).toEqual([
      'CREATE TABLE IF NOT EXISTS "headwater"."balances_v1" ("id" text, PRIMARY KEY ("id"))',
      'CREATE TABLE IF NOT EXISTS "headwater"."balances_v2" ("id" text, "cents" bigint, PRIMARY KEY ("id"))',
      'CREATE INDEX IF NOT EXISTS "balances_v2_cents" ON "headwater"."balances_v2" ("cents")',
    ]);
  });

  it('reports every mistake together, each with its remedy', () => {
    expect(mistakesOf(features([Account, Balances, SameBalances, BadBalances, Idle]))).toEqual([
      'Projections Balances and SameBalances are both "balances" version 1. Give one another name.',
      'Projection BadBalances: name "Bad-Name" must be lower-case letters, digits and underscores.',
      'Projection BadBalances: key column number is not among its columns. Add it.',
      'Projection BadBalances.plain: Plain has no @Changelog or @Event, so its topic is unknown. Decorate it.',
      'Projection Idle has no @On(…) method. Add one, or remove the class.',
    ]);
  });

  it('refuses a topic that no feature declares, and a class that is no provider', () => {
    expect(mistakesOf(features([Balances], false))).toEqual([
      'Projection Balances.account: topic accounts is unknown. Add Account to a forFeature([...]).',
      'Projection Balances is not a provider. Pass it to HeadwaterModule.forFeature([...]).',
    ]);
  });
});
