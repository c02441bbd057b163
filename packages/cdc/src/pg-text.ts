/** An element of an array, field of a composite or value of an hstore as Postgres prints it, unquoted; `null` for SQL NULL. */
export type Element = string | null;
export type Nested = Element | readonly Nested[];

/** Parses the text of an array. Lower bounds are dropped: `[0:2]={1,2,3}` gives three elements. */
export function parseArray(text: string, delimiter = ','): readonly Nested[] {
  const start = text.indexOf('{');
  if (start < 0) throw new RangeError('not an array');
  const [items, end] = arrayAt(text, start, delimiter);
  if (end !== text.length) throw new RangeError('text after the array');
  return items;
}

function arrayAt(text: string, open: number, delimiter: string): [Nested[], number] {
  const items: Nested[] = [];
  let i = open + 1;
  if (text[i] === '}') return [items, i + 1];
  for (;;) {
    if (text[i] === '{') {
      const [inner, next] = arrayAt(text, i, delimiter);
      items.push(inner);
      i = next;
    } else if (text[i] === '"') {
      const [value, next] = quotedAt(text, i);
      items.push(value);
      i = next;
    } else {
      let end = i;
      while (end < text.length && text[end] !== delimiter && text[end] !== '}') end += text[end] === '\\' ? 2 : 1;
      const raw = text.slice(i, end);
      items.push(raw === 'NULL' ? null : raw.replace(/\\(.)/gs, '$1'));
      i = end;
    }
    if (text[i] === '}') return [items, i + 1];
    if (text[i] !== delimiter) throw new RangeError('array without an end');
    i += 1;
  }
}

/** Parses the text of a composite: `(1,"a ""b""",)`; an empty unquoted field is NULL. */
export function parseComposite(text: string): readonly Element[] {
  if (!text.startsWith('(') || !text.endsWith(')')) throw new RangeError('not a composite');
  const fields: Element[] = [];
  let i = 1;
  const last = text.length - 1;
  for (;;) {
    let value: Element = null;
    while (i < last && text[i] !== ',') {
      if (text[i] === '"') {
        const [part, next] = quotedAt(text, i);
        value = (value ?? '') + part;
        i = next;
      } else {
        if (text[i] === '\\') i += 1;
        value = (value ?? '') + text[i]!;
        i += 1;
      }
    }
    fields.push(value);
    if (i >= last) return fields;
    i += 1;
  }
}

/** Parses the text of an hstore: `"a"=>"1", "b"=>NULL`. */
export function parseHstore(text: string): readonly (readonly [string, Element])[] {
  const entries: [string, Element][] = [];
  let i = 0;
  while (i < text.length) {
    const [key, afterKey] = quotedAt(text, i);
    i = afterKey + 2;
    if (text[i] === '"') {
      const [value, next] = quotedAt(text, i);
      entries.push([key, value]);
      i = next;
    } else {
      entries.push([key, null]);
      i += 4;
    }
    i += 2;
  }
  return entries;
}

/** Reads a quoted text from its opening quote; both `\"` and `""` stand for a quote. */
function quotedAt(text: string, open: number): [string, number] {
  let value = '';
  let i = open + 1;
  let from = i;
  for (;;) {
    const char = text[i];
    if (char === undefined) throw new RangeError('quoted text without an end');
    if (char === '\\') {
      value += text.slice(from, i);
      from = i + 1;
      i += 2;
    } else if (char !== '"') {
      i += 1;
    } else if (text[i + 1] === '"') {
      value += text.slice(from, i + 1);
      i += 2;
      from = i;
    } else {
      return [value + text.slice(from, i), i + 1];
    }
  }
}
