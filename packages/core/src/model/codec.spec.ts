import { describe, expect, it } from '@jest/globals';
import { IsInt, IsOptional, IsString, MaxLength, Min } from 'class-validator';
import { ContractError } from '../errors/headwater.error.js';
import { camelCase, decodeMessage, encodeMessage, keyOf, snakeCase } from './codec.js';
import { Changelog, Event, Int64, Key } from './model.js';

@Event({ topic: 'paid' })
class Paid {
  @Key()
  @IsString()
  @MaxLength(4)
  id!: string;

  @Int64()
  cents!: bigint;

  @IsInt()
  @Min(1)
  parts!: number;

  @IsOptional()
  @IsString()
  note?: string;
}
@Changelog({ topic: 'lines', table: 'lines' })
class Line {
  @Key()
  orderId!: string;
  @Key()
  @Int64()
  lineNo!: bigint;
  @Int64()
  postedCents!: bigint | null;
}

const paid = (fields: Partial<Paid>): Paid => Object.assign(new Paid(), { id: 'p1', cents: 1n, parts: 1 }, fields);
const bytes = (value: unknown): Buffer => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));

function violationsOf(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    if (error instanceof ContractError) return error.facts['violations'];
    throw error;
  }
  return undefined;
}

describe('codec', () => {
  it('carries int8 exactly over its whole range', () => {
    for (const cents of [0n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n)]) {
      const encoded = encodeMessage(paid({ cents }));
      expect(JSON.parse(encoded.value)).toMatchObject({ cents: cents.toString() });
      const decoded = decodeMessage(Paid, bytes(encoded.value));
      expect(decoded.cents).toBe(cents);
      expect(decoded).toBeInstanceOf(Paid);
    }
  });

  it('refuses an int8 that came as a number beyond 2^53: it may have been rounded', () => {
    expect(decodeMessage(Paid, bytes('{"id":"p1","cents":7,"parts":1}')).cents).toBe(7n);
    for (const cents of ['9007199254740993', '1.5', '"1.5"', '"x"', 'true', '{}'])
      expect(violationsOf(() => decodeMessage(Paid, bytes(`{"id":"p1","cents":${cents},"parts":1}`)))).toEqual([
        'cents is not an int8',
      ]);
  });

  it('names every violation at once, in both directions', () => {
    const wrong = { id: 'too long', cents: 1n, parts: 0.5, note: 3 as unknown as string };
    const violations = [
      'id must be shorter than or equal to 4 characters',
      'parts must not be less than 1',
      'parts must be an integer number',
      'note must be a string',
    ];
    expect(violationsOf(() => encodeMessage(paid(wrong)))).toEqual(violations);
    expect(violationsOf(() => decodeMessage(Paid, bytes({ ...wrong, cents: '1' })))).toEqual(violations);
  });

  it('refuses what is no JSON object', () => {
    for (const text of ['', '{', '\u0000\u0000', '[]', 'null', '1'])
      expect(() => decodeMessage(Paid, bytes(text))).toThrow(ContractError);
    expect(() => encodeMessage(new Date())).toThrow('Date: the class has no @Event, @Command or @Changelog');
  });

  it('takes the columns of a changelog by their snake_case names, null included', () => {
    const line = decodeMessage(Line, bytes({ order_id: 'o1', line_no: '2', posted_cents: null }));
    expect(line).toEqual(Object.assign(new Line(), { orderId: 'o1', lineNo: 2n, postedCents: null }));
  });

  it('makes a key of one property its text, of several a JSON array of texts', () => {
    expect(encodeMessage(paid({})).key).toBe('p1');
    expect(keyOf(Line, { orderId: 'o1', lineNo: 2n })).toBe('["o1","2"]');
  });

  it('names columns and properties in pairs', () => {
    for (const [column, property] of [
      ['posted_cents', 'postedCents'],
      ['id', 'id'],
    ] as const) {
      expect(camelCase(column)).toBe(property);
      expect(snakeCase(property)).toBe(column);
    }
  });
});
