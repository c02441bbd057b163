import { headerText, textHeaders } from '../log/headers.js';
import type { LogRecord, OutRecord } from '../log/log.js';
import { controlTopicOf } from './processor.js';

/**
 * What an operator asks about one parked sequence. `retry`: handle it again, in order, up to the first that fails again. `discard`: drop
 * its first, or all of it. `edit`: give its first another value, then retry.
 */
export type ParkedAct =
  | { readonly act: 'retry' }
  | { readonly act: 'discard'; readonly all: boolean }
  | { readonly act: 'edit'; readonly value: Buffer | null };

/** An act with who wants it and why: both are kept with what came of it. */
export type ControlOrder = ParkedAct & {
  /** Tells this order from another, for whoever waits for its result. */
  readonly id: string;
  readonly sequence: string;
  readonly reason: string;
  readonly by: string;
};

export function encodeControl(processor: string, partition: number, order: ControlOrder): OutRecord {
  return {
    topic: controlTopicOf(processor),
    partition,
    key: Buffer.from(order.sequence),
    value: order.act === 'edit' ? order.value : null,
    headers: textHeaders({
      hw_act: order.act === 'discard' && order.all ? 'discard-all' : order.act,
      hw_control: order.id,
      hw_reason: order.reason,
      hw_by: order.by,
    }),
  };
}

/** Undefined: not an order, or one without a reason or a name. */
export function decodeControl({ key, value, headers }: LogRecord): ControlOrder | undefined {
  const [id, reason, by] = ['hw_control', 'hw_reason', 'hw_by'].map((name) => headerText(headers, name) ?? '');
  if (key === null || !id || !reason || !by) return undefined;
  const common = { id, sequence: key.toString('utf8'), reason, by };
  switch (headerText(headers, 'hw_act')) {
    case 'retry':
      return { ...common, act: 'retry' };
    case 'discard':
      return { ...common, act: 'discard', all: false };
    case 'discard-all':
      return { ...common, act: 'discard', all: true };
    case 'edit':
      return { ...common, act: 'edit', value };
    default:
      return undefined;
  }
}

/** What came of an order: how many units were handled and dropped, how many are still parked, and what stopped it. */
export interface ControlResult {
  /** `done`: as asked. `parked`: one failed again; the rest waits behind it. `refused`: nothing was changed. */
  readonly outcome: 'done' | 'parked' | 'refused';
  readonly handled: number;
  readonly dropped: number;
  readonly left: number;
  readonly detail?: string;
}

/** The record an order leaves in the parked topic, beside what was parked: who did what, why, and what came of it. */
export function controlEvent(
  topic: string,
  { partition, key, value, headers, offset }: LogRecord,
  { outcome, handled, dropped, left, detail }: ControlResult,
): OutRecord {
  return {
    topic,
    partition,
    key,
    value,
    headers: textHeaders({
      hw_act: headerText(headers, 'hw_act') ?? 'unknown',
      hw_control: headerText(headers, 'hw_control'),
      hw_control_offset: String(offset),
      hw_reason: headerText(headers, 'hw_reason'),
      hw_by: headerText(headers, 'hw_by'),
      hw_outcome: outcome,
      hw_handled: String(handled),
      hw_dropped: String(dropped),
      hw_left: String(left),
      hw_detail: detail,
    }),
  };
}

export function decodeControlEvent({ headers }: LogRecord): ControlResult {
  const number = (name: string) => Number(headerText(headers, name));
  const detail = headerText(headers, 'hw_detail');
  return {
    outcome: headerText(headers, 'hw_outcome') as ControlResult['outcome'],
    handled: number('hw_handled'),
    dropped: number('hw_dropped'),
    left: number('hw_left'),
    ...(detail === undefined ? {} : { detail }),
  };
}
