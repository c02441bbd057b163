import type { Client } from 'pg';
import { parseLsn } from './lsn.js';
import type { Lsn } from './lsn.js';
import { textRows } from './postgres-session.js';

/** What the server says about a slot at one moment. */
export interface SlotReading {
  /** Milliseconds of the reader's clock; differences only. */
  readonly atMs: number;
  /** The end of the server's WAL. */
  readonly walLsn: Lsn;
  /** From `max_slot_wal_keep_size`; undefined: no limit. */
  readonly keepBytes: number | undefined;
  /** Undefined: there is no such slot. */
  readonly slot: SlotState | undefined;
}

export interface SlotState {
  readonly active: boolean;
  /** WAL before it may be removed. Undefined for a slot that was invalidated. */
  readonly restartLsn: Lsn | undefined;
  readonly confirmedLsn: Lsn;
  readonly walStatus: string;
  /** WAL that may still be written before the slot is lost; undefined without a limit. */
  readonly safeBytes: number | undefined;
  readonly invalidationReason: string | undefined;
}

const READ = `
  SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
         (SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
         s.slot_name IS NOT NULL, s.active, s.restart_lsn, s.confirmed_flush_lsn, s.wal_status, s.safe_wal_size,
         to_jsonb(s) ->> 'invalidation_reason'
    FROM (VALUES (1)) one LEFT JOIN pg_replication_slots s ON s.slot_name = $1`;

/** Reads one slot. Any role may; changes nothing. */
export async function readSlot(sql: Client, slot: string, now: () => number): Promise<SlotReading> {
  const [row] = await textRows(sql, READ, [slot]);
  const [walLsn, keepMegabytes, exists, active, restart, confirmed, walStatus, safe, reason] = row!;
  const keep = Number(keepMegabytes ?? -1);
  return {
    atMs: now(),
    walLsn: parseLsn(walLsn!),
    keepBytes: keep < 0 ? undefined : keep * 1024 * 1024,
    slot:
      exists === 't'
        ? {
            active: active === 't',
            restartLsn: restart == null ? undefined : parseLsn(restart),
            confirmedLsn: parseLsn(confirmed ?? '0/0'),
            walStatus: walStatus ?? 'unknown',
            safeBytes: safe == null ? undefined : Number(safe),
            invalidationReason: reason ?? undefined,
          }
        : undefined,
  };
}

export interface SlotHealth {
  readonly exists: boolean;
  readonly active: boolean;
  readonly walStatus: string | undefined;
  readonly invalidationReason: string | undefined;
  /** WAL that the server keeps for the slot. Undefined when it keeps none any more. */
  readonly retainedBytes: number | undefined;
  readonly safeBytes: number | undefined;
  readonly keepBytes: number | undefined;
  /** WAL not yet confirmed by capture. */
  readonly unconfirmedBytes: number | undefined;
  /** WAL written per second, over the readings given. Undefined with fewer than two. */
  readonly walBytesPerSecond: number | undefined;
  /** Until the slot is lost, were WAL written at the present rate and nothing confirmed. Undefined without a limit or a rate. */
  readonly hoursLeft: number | undefined;
}

/** Pure. `readings`: oldest first, at least one. */
export function slotHealth(readings: readonly SlotReading[]): SlotHealth {
  const [first, last] = [readings[0]!, readings.at(-1)!];
  const seconds = (last.atMs - first.atMs) / 1000;
  const rate = seconds <= 0 ? undefined : Number(last.walLsn - first.walLsn) / seconds;
  const { slot } = last;
  const behind = (lsn: Lsn | undefined) => (lsn === undefined ? undefined : Math.max(0, Number(last.walLsn - lsn)));
  const safe = slot?.safeBytes;
  return {
    exists: slot !== undefined,
    active: slot?.active ?? false,
    walStatus: slot?.walStatus,
    invalidationReason: slot?.invalidationReason,
    retainedBytes: behind(slot?.restartLsn),
    safeBytes: safe,
    keepBytes: last.keepBytes,
    unconfirmedBytes: behind(slot?.confirmedLsn),
    walBytesPerSecond: rate,
    hoursLeft: safe === undefined || rate === undefined || rate <= 0 ? undefined : Math.max(0, safe) / rate / 3600,
  };
}

/** When a slot is worth waking somebody. */
export interface SlotAlarmPolicy {
  /** A slot that nobody reads. Default 300,000. */
  readonly inactiveMs?: number;
  /** Part of `max_slot_wal_keep_size` that the slot retains. Default 0.5. */
  readonly retainedShare?: number;
  /** Time left at the present rate. Default 24. */
  readonly hoursLeft?: number;
}

export const SLOT_ALARM_DEFAULTS = { inactiveMs: 300_000, retainedShare: 0.5, hoursLeft: 24 } as const;

/** What is wrong with a slot, each with its remedy. Pure. `inactiveMs`: how long it has been inactive, 0 when it is active. */
export function slotAlarms(
  slot: string,
  health: SlotHealth,
  inactiveMs: number,
  policy: SlotAlarmPolicy = {},
): readonly string[] {
  const limits = { ...SLOT_ALARM_DEFAULTS, ...policy };
  const { walStatus, retainedBytes, keepBytes, hoursLeft } = health;
  if (!health.exists) return [];
  if (walStatus === 'lost' || health.invalidationReason !== undefined)
    return [
      `slot "${slot}" is lost (${health.invalidationReason ?? 'wal_removed'}). Changes are missing: take a new snapshot (snapshot "when-needed").`,
    ];
  const alarms: string[] = [];
  if (walStatus === 'unreserved')
    alarms.push(
      `slot "${slot}" is unreserved: the next checkpoint may remove its WAL. Let capture run now, or raise max_slot_wal_keep_size.`,
    );
  if (inactiveMs >= limits.inactiveMs)
    alarms.push(
      `slot "${slot}" has had no reader for ${Math.round(inactiveMs / 1000)} s and retains WAL. Start its capture, or remove it: headwater drop.`,
    );
  if (keepBytes !== undefined && retainedBytes !== undefined && retainedBytes > keepBytes * limits.retainedShare)
    alarms.push(
      `slot "${slot}" retains ${megabytes(retainedBytes)} of the ${megabytes(keepBytes)} that max_slot_wal_keep_size allows. Look why capture is behind, or raise the limit.`,
    );
  if (hoursLeft !== undefined && hoursLeft < limits.hoursLeft && (retainedBytes ?? 0) > (keepBytes ?? 0) / 10)
    alarms.push(
      `slot "${slot}" would be lost in ${hoursLeft.toFixed(1)} h at the present rate of WAL if capture confirmed nothing.`,
    );
  return alarms;
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1024 / 1024)} MB`;
