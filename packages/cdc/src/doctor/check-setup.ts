import { errorCode } from '@headwater/core';
import type { Client } from 'pg';
import { CaptureError } from '../cdc.errors.js';
import { SourceTables } from '../source-tables.js';
import { diagnose, findingText } from './diagnose.js';
import { sessionRefusal } from './refused-session.js';
import { readSetup } from './setup-facts.js';
import type { SetupWanted } from './setup-facts.js';

/** What a session for replication commands is refused with where the server is not set up for capture: no right, no walsender left, no line. */
const REFUSALS = /^(42501|53300|28...)$/;

/**
 * Reads the tables, and refuses a server that is not set up for capture: CDC_SERVER_NOT_READY with every fault and its remedy, those of the
 * tables included; CDC_TABLES_INVALID when only the tables are wrong. `replication`: the session for replication commands, or what it failed with.
 * `again`: the server has served this capture before, so a missing walsender is one that has not noticed yet whom it lost.
 */
export async function checkSetup(
  sql: Client,
  wanted: SetupWanted,
  replication: PromiseSettledResult<Client>,
  again: boolean,
): Promise<SourceTables> {
  const refused = replication.status === 'rejected' ? (replication.reason as unknown) : undefined;
  if (refused !== undefined && !REFUSALS.test(errorCode(refused) ?? '')) throw refused;
  const [tables] = await Promise.allSettled([SourceTables.read(sql, wanted)]);
  const invalid = tables.status === 'rejected' ? (tables.reason as unknown) : undefined;
  if (invalid !== undefined && errorCode(invalid) !== 'CDC_TABLES_INVALID') throw invalid;
  const facts = await readSetup(sql, wanted, tables.status === 'fulfilled' ? tables.value.tables : undefined, refused);
  const faults = diagnose(facts)
    .filter(({ about }) => !again || about !== 'max_wal_senders')
    .map(findingText);
  if (faults.length > 0) throw notReady([...faults, ...tableFaultsOf(invalid)], refused);
  if (tables.status === 'rejected') throw tables.reason;
  if (replication.status === 'rejected') throw replication.reason;
  return tables.value;
}

/** An ordinary session that is refused for good, as CDC_SERVER_NOT_READY with the remedy; any other error as it came. */
export function refusedSession(error: unknown, connectionString: string): unknown {
  const refusal = sessionRefusal(error, connectionString);
  return refusal === undefined ? error : notReady([refusal], error);
}

export function tableFaultsOf(invalid: unknown): readonly string[] {
  return invalid instanceof CaptureError ? (invalid.facts['faults'] as readonly string[]) : [];
}

function notReady(faults: readonly string[], cause: unknown): CaptureError {
  const list = faults.map((fault) => `\n  - ${fault}`).join('');
  return new CaptureError('CDC_SERVER_NOT_READY', `${faults.length} fault(s):${list}`, { faults }, cause);
}
