import {
  ContractError,
  changeOf,
  handlerFor,
  handlersOf,
  topicsOf,
  type ApplyDefinition,
  type Change,
  type Handler,
  type LogRecord,
  type MessageClass,
} from '@headwater/core';
import { consumerOf, keyColumns, type ProjectionOptions, type Row } from './projection.js';
import { writeRows, type RowWrite } from './table.js';

/** A projection class and its instance as an apply definition. */
export function applyProjection(
  type: MessageClass,
  instance: object,
  options: ProjectionOptions,
): ApplyDefinition<RowWrite> {
  const handlers = handlersOf(type);
  return {
    consumer: consumerOf(options),
    topics: topicsOf(type),
    prepare: (record) => {
      const on = handlerFor(handlers, record);
      return on === undefined ? undefined : project(on, instance, options, record);
    },
    write: (writes, sql) => writeRows(options, writes, sql),
  };
}

function project(on: Handler, instance: object, options: ProjectionOptions, record: LogRecord): RowWrite | undefined {
  const method = (instance as Record<string, (change: Change<object>) => Row | undefined>)[on.method]!;
  const made = method.call(instance, changeOf(on.type, record));
  if (made === undefined) return undefined;
  const missing = keyColumns(options).filter((column) => made[column] === undefined || made[column] === null);
  if (missing.length > 0)
    throw new ContractError(`projection ${options.name}`, [`${on.method} gave no ${missing.join(', ')}`]);
  return { op: record.value === null ? 'delete' : 'upsert', row: made };
}
