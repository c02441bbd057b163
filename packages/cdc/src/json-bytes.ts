import { isUtf8 } from 'node:buffer';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const HEX = Buffer.from('0123456789abcdef');

/** Per byte: 0 itself, 1 `\u00xx`, 2 part of a longer character, otherwise the letter behind a backslash. */
const ESCAPES = new Uint8Array(256).fill(1, 0, 0x20).fill(2, 0x80);
for (const [byte, letter] of ['\bb', '\tt', '\nn', '\ff', '\rr', '""', '\\\\'].map((pair) => [...Buffer.from(pair)]))
  ESCAPES[byte!] = letter!;

/** Writes the JSON string of UTF-8 text as `JSON.stringify` would, and returns where it ends. The target has room for `jsonStringRoom`. */
export function putJsonString(target: Uint8Array, at: number, text: Buffer, from: number, to: number): number {
  target[at++] = QUOTE;
  let i = from;
  for (; i < to; i++) {
    const byte = text[i]!;
    if (ESCAPES[byte] !== 0) break;
    target[at++] = byte;
  }
  if (i < to) return putRest(target, at, text, from, i, to);
  target[at++] = QUOTE;
  return at;
}

function putRest(target: Uint8Array, at: number, text: Buffer, start: number, from: number, to: number): number {
  let isText = false;
  for (let i = from; i < to; i++) {
    const byte = text[i]!;
    const escape = ESCAPES[byte]!;
    if (escape === 0) target[at++] = byte;
    else if (escape === 1) {
      target[at++] = BACKSLASH;
      target[at++] = 0x75;
      target[at++] = 0x30;
      target[at++] = 0x30;
      target[at++] = HEX[byte >> 4]!;
      target[at++] = HEX[byte & 15]!;
    } else if (escape === 2) {
      // Bytes of another encoding (a database of SQL_ASCII) become replacement characters: never JSON that cannot be read.
      if (!isText && !isUtf8(text.subarray(start, to))) {
        const clean = Buffer.from(text.toString('utf8', i, to));
        return putRest(target, at, clean, 0, 0, clean.length);
      }
      isText = true;
      target[at++] = byte;
    } else {
      target[at++] = BACKSLASH;
      target[at++] = escape;
    }
  }
  target[at++] = QUOTE;
  return at;
}

/** At most how long the JSON string of these bytes is. */
export function jsonStringRoom(text: Buffer, from: number, to: number): number {
  if (to - from <= 1_024) return 2 + 6 * (to - from);
  let room = 2;
  for (let i = from; i < to; i++) {
    const escape = ESCAPES[text[i]!]!;
    room += escape === 0 ? 1 : escape === 1 ? 6 : escape === 2 ? 3 : 2;
  }
  return room;
}

/** Writes the digits of an integer from 0 to 2^53. */
export function putDigits(target: Uint8Array, at: number, value: number): number {
  let digits = 1;
  for (let power = 10; power <= value; power *= 10) digits++;
  const end = at + digits;
  let high = value;
  let i = end;
  while (high > 0x7fff_ffff) {
    const rest = Math.floor(high / 10);
    target[--i] = 0x30 + (high - rest * 10);
    high = rest;
  }
  let low = high | 0;
  while (i > at) {
    const rest = (low / 10) | 0;
    target[--i] = 0x30 + (low - rest * 10);
    low = rest;
  }
  return end;
}

/**
 * Writes `2026-01-31 23:59:59.123+00` as `"2026-01-31T23:59:59.123000Z"`, without an offset alike without the `Z`. Anything else (BC,
 * infinity) is written as the string it is.
 */
export function putTimestamp(target: Uint8Array, at: number, text: Buffer, from: number, to: number): number {
  const space = from + 10 < to && text[from + 10] === 0x20 ? from + 10 : text.subarray(from, to).indexOf(0x20) + from;
  if (!isDate(text, from, space) || !isClock(text, space + 1, to)) return putJsonString(target, at, text, from, to);
  const fraction = fractionEnd(text, space + 9, to);
  const isUtc =
    to - fraction === 3 && text[fraction] === 0x2b && text[fraction + 1] === 0x30 && text[fraction + 2] === 0x30;
  if (fraction < 0 || (fraction !== to && !isUtc)) return putJsonString(target, at, text, from, to);
  target[at++] = QUOTE;
  for (let i = from; i < space; i++) target[at++] = text[i]!;
  target[at++] = 0x54;
  at = putClock(target, at, text, space + 1, fraction);
  if (isUtc) target[at++] = 0x5a;
  target[at++] = QUOTE;
  return at;
}

/** Writes `23:59:59.123+05:30` as `"23:59:59.123000+05:30"`; anything else as the string it is. */
export function putTime(target: Uint8Array, at: number, text: Buffer, from: number, to: number): number {
  const fraction = isClock(text, from, to) ? fractionEnd(text, from + 8, to) : -1;
  if (fraction < 0 || !isOffset(text, fraction, to)) return putJsonString(target, at, text, from, to);
  target[at++] = QUOTE;
  at = putClock(target, at, text, from, fraction);
  for (let i = fraction; i < to; i++) target[at++] = text[i]!;
  target[at++] = QUOTE;
  return at;
}

/** Copies an integer. Throws a RangeError when it is none. */
export function putInteger(target: Uint8Array, at: number, text: Buffer, from: number, to: number): number {
  let i = from;
  if (text[i] === 0x2d) target[at++] = text[i++]!;
  if (i >= to) throw new RangeError('not an integer');
  for (; i < to; i++) {
    const byte = text[i]!;
    if (!isDigit(byte)) throw new RangeError('not an integer');
    target[at++] = byte;
  }
  return at;
}

/** Copies a float; `NaN` and the infinities become strings. Throws a RangeError when it is none. */
export function putFloat(target: Uint8Array, at: number, text: Buffer, from: number, to: number): number {
  const last = text[to - 1];
  if (to > from && (last === 0x4e || last === 0x79) && /^(NaN|-?Infinity)$/.test(text.toString('latin1', from, to)))
    return putJsonString(target, at, text, from, to);
  for (let i = from; i < to; i++) {
    const byte = text[i]!;
    if (!isDigit(byte) && byte !== 0x2e && byte !== 0x2d && byte !== 0x2b && byte !== 0x65)
      throw new RangeError('not a number');
    target[at++] = byte;
  }
  if (from >= to) throw new RangeError('not a number');
  return at;
}

/** Copies JSON as it is. */
export function putJson(target: Buffer, at: number, text: Buffer, from: number, to: number): number {
  for (let i = from; i < to; i++) {
    const byte = text[i]!;
    if (byte > 0x7f) return putRestOfJson(target, at, text, i, to);
    target[at++] = byte;
  }
  return at;
}

function putRestOfJson(target: Buffer, at: number, text: Buffer, from: number, to: number): number {
  const rest = text.subarray(from, to);
  return at + (isUtf8(rest) ? rest : Buffer.from(rest.toString())).copy(target, at);
}

const TRUE = Buffer.from('true');
const FALSE = Buffer.from('false');

/** Throws a RangeError for anything but `t` and `f`. */
export function putBoolean(target: Uint8Array, at: number, text: Buffer, from: number, to: number): number {
  const byte = text[from];
  if (to - from !== 1 || (byte !== 0x74 && byte !== 0x66)) throw new RangeError('not a boolean');
  return putBytes(target, at, byte === 0x74 ? TRUE : FALSE, 0);
}

/** Copies bytes from `from` on: for short ones, where a native copy costs more than the bytes. */
export function putBytes(target: Uint8Array, at: number, bytes: Uint8Array, from: number): number {
  for (let i = from; i < bytes.length; i++) target[at++] = bytes[i]!;
  return at;
}

function putClock(target: Uint8Array, at: number, text: Buffer, from: number, fraction: number): number {
  for (let i = from; i < from + 8; i++) target[at++] = text[i]!;
  target[at++] = 0x2e;
  const end = at + 6;
  for (let i = from + 9; i < fraction; i++) target[at++] = text[i]!;
  while (at < end) target[at++] = 0x30;
  return at;
}

/** `\d{4,}-\d\d-\d\d` */
function isDate(text: Buffer, from: number, to: number): boolean {
  if (to - from < 10 || text[to - 3] !== 0x2d || text[to - 6] !== 0x2d) return false;
  for (let i = from; i < to; i++) if (i !== to - 3 && i !== to - 6 && !isDigit(text[i]!)) return false;
  return true;
}

/** `\d\d:\d\d:\d\d` at `at`. */
function isClock(text: Buffer, at: number, to: number): boolean {
  if (to - at < 8 || text[at + 2] !== 0x3a || text[at + 5] !== 0x3a) return false;
  return (
    isDigit(text[at]!) &&
    isDigit(text[at + 1]!) &&
    isDigit(text[at + 3]!) &&
    isDigit(text[at + 4]!) &&
    isDigit(text[at + 6]!) &&
    isDigit(text[at + 7]!)
  );
}

/** Where a fraction of one to six digits ends, `at` when there is none, −1 when it is malformed. */
function fractionEnd(text: Buffer, at: number, to: number): number {
  if (at >= to || text[at] !== 0x2e) return at;
  let end = at + 1;
  while (end < to && isDigit(text[end]!)) end++;
  return end - at < 2 || end - at > 7 ? -1 : end;
}

function isOffset(text: Buffer, from: number, to: number): boolean {
  if (from === to) return true;
  if (text[from] !== 0x2b && text[from] !== 0x2d) return false;
  for (let i = from + 1; i < to; i++) if (!isDigit(text[i]!) && text[i] !== 0x3a) return false;
  return true;
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}
