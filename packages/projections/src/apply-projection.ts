import {
  ContractError,
  decodeMessage,
  headerText,
  modelOf,
  type ApplyDefinition,
  type LogRecord,
} from '@headwater/core';
import {
  consumerOf,
  handlersOf,
  keyColumns,
  topicsOf,
  type Change,
  type On,
  type ProjectionOptions,
  type Row,
} from './projection.js';
import { writeRows, type RowWrite } from './table.js';
import type { MessageClass } from '@headwater/core';

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
      const on = handlers.find((handler) => matches(handler, record));
      return on === undefined ? undefined : project(on, instance, options, record);
    },
    write: (writes, sql) => writeRows(options, writes, sql),
  };
}

/** Every record of a changelog topic; of an event topic, those of the handler's type. */
function matches(on: On, record: LogRecord): boolean {
  const model = modelOf(on.type)!;
  return (
    model.topic === record.topic && (model.kind === 'changelog' || headerText(record.headers, 'ce_type') === model.type)
  );
}

function project(on: On, instance: object, options: ProjectionOptions, record: LogRecord): RowWrite | undefined {
  const method = (instance as Record<string, (change: Change<object>) => Row | undefined>)[on.method]!;
  const after = record.value === null ? {} : { after: decodeMessage(on.type, record.value) };
  const made = method.call(instance, { key: record.key!.toString('utf8'), timestamp: record.timestamp, ...after });
  if (made === undefined) return undefined;
  const missing = keyColumns(options).filter((column) => made[column] === undefined || made[column] === null);
  if (missing.length > 0)
    throw new ContractError(`projection ${options.name}`, [`${on.method} gave no ${missing.join(', ')}`]);
  return { op: record.value === null ? 'delete' : 'upsert', row: made };
}
