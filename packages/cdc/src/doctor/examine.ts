import { errorMessage } from '@headwater/core';
import type { Clock } from '@headwater/core';
import type { Client } from 'pg';
import { resolveOptions } from '../capture.options.js';
import type { CaptureOptions, ResolvedOptions } from '../capture.options.js';
import { formatLsn } from '../lsn.js';
import { readPositionIfAny } from '../position.js';
import { openReplicationSession, openSession } from '../postgres-session.js';
import { readServer, readTimelineSwitch } from '../server.js';
import { readSlot, slotAlarms, slotHealth } from '../slot-health.js';
import { SourceTables } from '../source-tables.js';
import { planResume } from '../verify-slot.js';
import { tableFaultsOf } from './check-setup.js';
import { diagnose, fault } from './diagnose.js';
import type { Finding } from './diagnose.js';
import { examineTopics } from './examine-topics.js';
import { readSetup } from './setup-facts.js';
import { weakKeys } from './weak-keys.js';

/** What a look at everything that a capture needs has found. */
export interface Examination {
  readonly findings: readonly Finding[];
  /** For an operator's eyes: versions, slot, position. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** The rate of the WAL is measured over this long. */
const RATE_MS = 1_000;

/** Looks at the server, the tables, the slot, its position and the topics of a capture, running or not. Changes nothing; never rejects for what it finds. */
export async function examine(options: CaptureOptions): Promise<Examination> {
  const resolved = resolveOptions(options);
  const [kafka, postgres] = await Promise.all([examineTopics(resolved), examineServer(resolved)]);
  return { findings: [...postgres.findings, ...kafka], facts: postgres.facts };
}

async function examineServer(options: ResolvedOptions): Promise<Examination> {
  const { connectionString, name } = options;
  const opening = [openSession(connectionString, name), openReplicationSession(connectionString, name)] as const;
  const [session, replication] = await Promise.allSettled(opening);
  try {
    if (session.status === 'rejected') return { findings: [noSession(session.reason)], facts: {} };
    const sql = session.value;
    const [tables] = await Promise.allSettled([SourceTables.read(sql, options)]);
    const refused: unknown = replication.status === 'rejected' ? replication.reason : undefined;
    const found = tables.status === 'fulfilled' ? tables.value : undefined;
    const setup = await readSetup(sql, options, found?.tables, refused);
    const tableFaults = tables.status === 'rejected' ? tableFaultsOf(tables.reason).map(split('fault')) : [];
    const keys = await weakKeys(sql, found?.tables ?? []);
    const slot = await examineSlot(options, sql);
    const resume =
      replication.status === 'rejected'
        ? []
        : await examinePosition(options, sql, replication.value, found?.keys ?? {});
    return {
      findings: [...diagnose(setup), ...tableFaults, ...keys, ...slot.findings, ...resume],
      facts: { postgres: setup.versionNum, role: setup.role.name, ...slot.facts },
    };
  } catch (error) {
    return { findings: [noSession(error)], facts: {} };
  } finally {
    await Promise.all(
      opening.map((of) =>
        of.then(
          (client) => client.end(),
          () => undefined,
        ),
      ),
    ).catch(() => undefined); // what was found counts, not how the sessions end
  }
}

async function examineSlot({ slot, clock }: { slot: string; clock: Clock }, sql: Client): Promise<Examination> {
  const first = await readSlot(sql, slot, () => clock.elapsed());
  await clock.wait(RATE_MS);
  const last = await readSlot(sql, slot, () => clock.elapsed());
  const health = slotHealth([first, last]);
  const findings = slotAlarms(slot, health, 0).map(split('warning'));
  if (health.keepBytes === undefined)
    findings.push({
      severity: 'advice',
      about: 'max_slot_wal_keep_size',
      message: 'max_slot_wal_keep_size is not set: WAL for a capture that is down fills the disk in the end.',
      fix: `ALTER SYSTEM SET max_slot_wal_keep_size = '<what the disk can spare>'; SELECT pg_reload_conf();`,
    });
  return { findings, facts: { slot, ...health } };
}

/** Whether the slot still fits the position: what a start would refuse, or do without being asked. */
async function examinePosition(
  options: ResolvedOptions,
  sql: Client,
  replication: Client,
  keys: Readonly<Record<string, readonly string[]>>,
): Promise<Finding[]> {
  const { slot, log, positionTopic, name } = options;
  const position = await readPositionIfAny(log, positionTopic, name);
  let server = await readServer(sql, replication, options);
  if (position !== undefined && position.timeline !== server.timeline)
    server = { ...server, timelineSwitch: await readTimelineSwitch(replication, server.timeline, position.timeline) };
  const plan = planResume({ ...options, keys }, server, position, true);
  const error = plan.kind === 'refused' ? plan.error : plan.kind === 'snapshot' ? plan.because : undefined;
  if (error === undefined) return [];
  const at = position === undefined ? '' : ` The position ends at ${formatLsn(position.endLsn)}.`;
  const fix =
    plan.kind === 'refused'
      ? 'Do as the message says.'
      : 'The next start takes a new snapshot by itself ("when-needed").';
  return [fault(`slot ${slot}`, `${error.message}${at}`, fix)];
}

function noSession(error: unknown): Finding {
  const message = `the database cannot be asked: ${errorMessage(error)}.`;
  return fault('postgres', message, 'Correct "postgres", start the server, or let the role in (pg_hba.conf).');
}

/** A sentence and its remedy, as faults of tables and alarms of slots are written. */
function split(severity: Finding['severity']): (text: string) => Finding {
  return (text) => {
    const end = text.indexOf('. ') + 1;
    const [about = text] = /^[^:]+(?=:)|^slot "[^"]+"/.exec(text) ?? [];
    return { severity, about, message: text.slice(0, end), fix: text.slice(end + 1) };
  };
}
