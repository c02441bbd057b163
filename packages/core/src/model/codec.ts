import { validateSync, type ValidationError } from 'class-validator';
import { ContractError, errorMessage } from '../errors/headwater.error.js';
import { int64Properties, keyProperties, modelOf, type MessageClass } from './model.js';

/** A message in its outer form: a key, a JSON text. */
export interface EncodedMessage {
  readonly topic: string;
  readonly type: string;
  readonly key: string;
  readonly value: string;
}

/**
 * Checks a message against its contract and encodes it. bigint becomes a text.
 * Throws ContractError naming every violation: nothing bad is ever published by us.
 */
export function encodeMessage(message: object): EncodedMessage {
  const type = message.constructor as MessageClass;
  const model = modelOf(type);
  if (model === undefined) {
    throw new ContractError(type.name, ['the class has no @Event, @Command or @Changelog']);
  }
  check(type.name, message);
  return {
    topic: model.topic,
    type: model.type,
    key: keyOf(type, message as Readonly<Record<string, unknown>>),
    value: JSON.stringify(message, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)),
  };
}

/**
 * Decodes and checks a value. For a changelog the columns are taken by their snake_case names.
 * The constructor is not called. Throws ContractError on anything that is not a valid `T`.
 */
export function decodeMessage<T extends object>(type: MessageClass<T>, value: Buffer): T {
  let fields: unknown;
  try {
    fields = JSON.parse(value.toString('utf8'));
  } catch (cause) {
    throw new ContractError(type.name, [`value is not JSON (${errorMessage(cause)})`], cause);
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) {
    throw new ContractError(type.name, ['value is not a JSON object']);
  }
  const columns = modelOf(type)?.kind === 'changelog';
  const message = Object.create(type.prototype as object) as Record<string, unknown>;
  for (const [name, field] of Object.entries(fields)) message[columns ? camelCase(name) : name] = field;
  for (const name of int64Properties(type)) message[name] = toBigint(type.name, name, message[name]);
  check(type.name, message);
  return message as T;
}

/** Key text of a message: the key property, or a JSON array of texts when there are several. */
export function keyOf(type: MessageClass, message: Readonly<Record<string, unknown>>): string {
  const names = keyProperties(type);
  if (names.length === 0) throw new ContractError(type.name, ['no property is decorated with @Key()']);
  const parts = names.map((name) => String(message[name]));
  return parts.length === 1 ? parts[0]! : JSON.stringify(parts);
}

export function camelCase(column: string): string {
  return column.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

export function snakeCase(property: string): string {
  return property.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function toBigint(subject: string, name: string, value: unknown): unknown {
  if (value === null || value === undefined) return value;
  if (typeof value === 'string' && /^-?\d+$/.test(value)) return BigInt(value);
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  throw new ContractError(subject, [`${name} is not an int8`]);
}

function check(subject: string, message: object): void {
  const errors = validateSync(message, { forbidUnknownValues: false });
  if (errors.length > 0) throw new ContractError(subject, errors.flatMap(violations));
}

function violations(error: ValidationError): string[] {
  return [...Object.values(error.constraints ?? {}), ...(error.children ?? []).flatMap(violations)];
}
