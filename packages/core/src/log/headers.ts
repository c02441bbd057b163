import type { Header } from './log.js';

/** The text of a header, or undefined when it is absent. */
export function headerText(headers: readonly Header[], name: string): string | undefined {
  for (const [key, value] of headers) if (key === name) return value === null ? undefined : value.toString('utf8');
  return undefined;
}

export function textHeaders(fields: Readonly<Record<string, string | undefined>>): Header[] {
  return Object.entries(fields).flatMap(([name, text]) =>
    text === undefined ? [] : [[name, Buffer.from(text)] as const],
  );
}
