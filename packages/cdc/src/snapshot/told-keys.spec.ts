import { expect, it } from '@jest/globals';
import { ToldKeys } from './told-keys.js';

it('remembers the keys of the tables it follows, up to a bound, until a table is forgotten', () => {
  const told = new ToldKeys(2);
  told.follow('a');
  for (const key of ['1', '2', '3']) told.add('a', key);
  told.add('b', '1');
  expect([...told.of('a')]).toEqual(['1', '2']);
  expect([told.follows('a'), told.follows('b'), told.of('b').size]).toEqual([true, false, 0]);
  told.follow('a');
  const of = told.of('a');
  told.forget('a');
  expect([told.follows('a'), told.of('a').size, of.size]).toEqual([false, 0, 2]);
});
