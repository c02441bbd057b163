const [BACKSLASH, NEWLINE] = [0x5c, 0x0a];
/** What the letters behind a backslash stand for in COPY's text format; every other byte stands for itself. */
const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };

/**
 * The columns of one row of `COPY … TO STDOUT` in text format, with its newline; `null` for SQL NULL. Throws a RangeError when there are not as many as
 * were asked for.
 */
export function parseCopyRow(bytes: Buffer, count: number): (string | null)[] {
  const end = bytes.at(-1) === NEWLINE ? bytes.length - 1 : bytes.length;
  const columns = bytes.toString('utf8', 0, end).split('\t');
  if (columns.length !== count) throw new RangeError(`a row with ${columns.length} instead of ${count} columns`);
  // Most rows hold nothing escaped.
  return bytes.includes(BACKSLASH) ? columns.map(unescaped) : columns;
}

function unescaped(column: string): string | null {
  if (column === '\\N') return null;
  return column.includes('\\')
    ? column.replaceAll(/\\([\s\S])/g, (_, letter: string) => ESCAPES[letter] ?? letter)
    : column;
}
