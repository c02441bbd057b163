import type { Metric } from '@headwater/core';
import type { CaptureStatus } from './capture.js';
import type { WatchedSlot } from './slot-watch.js';

const STATES = ['idle', 'starting', 'waiting', 'snapshot', 'streaming', 'reconnecting', 'stopped', 'halted'] as const;

/**
 * What a Prometheus page shows of one capture. What only the server knows is absent while it does not answer; the lag goes on growing.
 * No figure is an old one.
 */
export function captureMetrics(name: string, status: CaptureStatus, watched: WatchedSlot): Metric[] {
  const one = (metric: string, type: Metric['type'], help: string, value: number | undefined, more = {}): Metric[] =>
    value === undefined
      ? []
      : [{ name: `headwater_capture_${metric}`, type, help, labels: { capture: name, ...more }, value }];
  const { health, lagBytes, lagMs } = watched;
  const seconds = lagMs === undefined ? undefined : lagMs / 1000;
  return [
    ...one('up', 'gauge', '1 while it streams, takes a snapshot or waits for its slot', isUp(status.state) ? 1 : 0),
    ...STATES.flatMap((state) =>
      one('state', 'gauge', '1 for the present state', status.state === state ? 1 : 0, { state }),
    ),
    ...one('rows_total', 'counter', 'Rows and messages published', status.rows),
    ...one('transactions_total', 'counter', 'Source transactions published', status.transactions),
    ...one('reconnects_total', 'counter', 'Streams lost', status.reconnects),
    ...one('ignored_messages_total', 'counter', 'Logical messages passed by', status.ignoredMessages),
    ...one('parked_changes', 'gauge', 'Changes set aside; alert above 0', status.parked?.changes),
    ...one('parked_keys', 'gauge', 'Keys whose changes wait behind a parked one', status.parked?.keys),
    ...one('lag_seconds', 'gauge', 'Age of the oldest WAL that is not published', seconds),
    ...one('lag_bytes', 'gauge', 'WAL written and not published', lagBytes),
    ...one('slot_alarms', 'gauge', 'What is wrong with the slot; alert above 0', watched.alarms.length),
    ...one('slot_active', 'gauge', '1 while a connection reads from the slot', health && (health.active ? 1 : 0)),
    ...one('slot_lost', 'gauge', '1 when the server has invalidated the slot', health && (isLost(health) ? 1 : 0)),
    ...one('slot_retained_bytes', 'gauge', 'WAL that the server keeps for the slot', health?.retainedBytes),
    ...one('slot_safe_bytes', 'gauge', 'WAL that may be written before the slot is lost', health?.safeBytes),
    ...one('slot_unconfirmed_bytes', 'gauge', 'WAL written and not confirmed by capture', health?.unconfirmedBytes),
  ];
}

const isUp = (state: CaptureStatus['state']): boolean => ['streaming', 'snapshot', 'waiting'].includes(state);
const isLost = (health: NonNullable<WatchedSlot['health']>): boolean =>
  health.walStatus === 'lost' || health.invalidationReason !== undefined;
