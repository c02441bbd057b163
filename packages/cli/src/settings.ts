import { accessSync, constants } from 'node:fs';
import { errorMessage } from '@headwater/core';

/** Checks one value of a file; `at` is where it stands. Every mistake ends with its remedy. */
export type Check = (value: unknown, at: string) => readonly string[];

export interface Setting {
  readonly check: Check;
  /** Shown when the setting is missing; without it the setting may be left out. */
  readonly example?: string;
}

export const optional = (check: Check): Setting => ({ check });
export const required = (check: Check, example: string): Setting => ({ check, example });

/** An object with these settings and no others. */
export function object(settings: Readonly<Record<string, Setting>>): Check {
  return (value, at) => {
    if (!isObject(value)) return [`${at}: not an object. Write { … }.`];
    const unknown = Object.keys(value).filter((name) => !Object.hasOwn(settings, name));
    return [
      ...unknown.map((name) => `${path(at, name)}: unknown setting. Known here: ${Object.keys(settings).join(', ')}.`),
      ...Object.entries(settings).flatMap(([name, { check, example }]) => {
        if (value[name] !== undefined) return check(value[name], path(at, name));
        return example === undefined ? [] : [`${path(at, name)}: missing. Write ${example}.`];
      }),
    ];
  };
}

export const text: Check = (value, at) =>
  typeof value === 'string' && value !== '' ? [] : [`${at}: ${shown(value)} is not a text. Write it in quotes.`];

export const flag: Check = (value, at) =>
  typeof value === 'boolean' ? [] : [`${at}: ${shown(value)} is neither true nor false. Write one of them.`];

/** The path of a file that can be read. */
export const file: Check = (value, at) => {
  const mistakes = text(value, at);
  if (mistakes.length > 0) return mistakes;
  try {
    accessSync(value as string, constants.R_OK);
    return [];
  } catch (error) {
    return [`${at}: ${errorMessage(error)}. Give the path of a file that can be read.`];
  }
};

export function integer(least: number, most = Number.MAX_SAFE_INTEGER): Check {
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`;
  return (value, at) =>
    Number.isInteger(value) && (value as number) >= least && (value as number) <= most
      ? []
      : [`${at}: ${shown(value)} is not a whole number ${range}. Write one.`];
}

export function oneOf(...values: readonly string[]): Check {
  return (value, at) =>
    typeof value === 'string' && values.includes(value)
      ? []
      : [`${at}: ${shown(value)} is none of ${values.map(shown).join(', ')}. Write one of them.`];
}

/** A text of this form; `form` says it in words. */
export function matching(pattern: RegExp, form: string): Check {
  return (value, at) =>
    typeof value === 'string' && pattern.test(value) ? [] : [`${at}: ${shown(value)} is not ${form}. Correct it.`];
}

export function list(of: Check, example: string, least = 1): Check {
  return (value, at) => {
    if (!Array.isArray(value) || value.length < least)
      return [`${at}: not a list${least > 0 ? ' of one or more' : ''}. Write ${example}.`];
    return value.flatMap((item, i) => of(item, `${at}[${i}]`));
  };
}

/** What the first fitting kind of value is checked by. */
export function either(...kinds: readonly (readonly [fits: (value: unknown) => boolean, check: Check])[]): Check {
  return (value, at) => (kinds.find(([fits]) => fits(value)) ?? kinds.at(-1)!)[1](value, at);
}

export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const path = (at: string, name: string): string => (at === '' ? name : `${at}.${name}`);
const shown = (value: unknown): string => JSON.stringify(value) ?? 'nothing';
