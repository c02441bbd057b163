import { ContractError, type ApplyDefinition, type LogRecord } from '@headwater/core';
import { statusTopicOf } from './compile.js';
import { isOpen, type SagaState, type StepState } from './decide.js';

/** One row of `headwater.sagas`: the operator's view, kept from the status changelogs. */
export interface SagaRow {
  readonly saga: string;
  readonly id: string;
  readonly version: number;
  readonly status: SagaState['status'];
  readonly reason: string | null;
  readonly steps: readonly StepState[];
  readonly open: boolean;
  readonly start_event: unknown;
  readonly started_at: string;
  readonly updated_at: string;
}

export const SAGAS_DDL = [
  `CREATE TABLE IF NOT EXISTS headwater.sagas (
     saga text NOT NULL, id text NOT NULL, version int NOT NULL, status text NOT NULL, reason text, steps jsonb NOT NULL,
     open boolean NOT NULL, start_event jsonb NOT NULL, started_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
     PRIMARY KEY (saga, id))`,
  `CREATE INDEX IF NOT EXISTS sagas_open ON headwater.sagas (saga, started_at) WHERE open`,
  `CREATE INDEX IF NOT EXISTS sagas_updated ON headwater.sagas (updated_at)`,
];

const UPSERT = `
  INSERT INTO headwater.sagas SELECT * FROM jsonb_populate_recordset(NULL::headwater.sagas, $1::jsonb)
  ON CONFLICT (saga, id) DO UPDATE SET version = EXCLUDED.version, status = EXCLUDED.status, reason = EXCLUDED.reason,
    steps = EXCLUDED.steps, open = EXCLUDED.open, updated_at = EXCLUDED.updated_at`;

export const statusConsumerOf = (saga: string): string => `saga-status.${saga}`;

export function applySagaStatus(saga: string): ApplyDefinition<SagaRow> {
  return {
    consumer: statusConsumerOf(saga),
    topics: [statusTopicOf(saga)],
    prepare: toRow,
    write: async (rows, sql) => {
      const last = new Map(rows.map((row) => [row.id, row]));
      await sql.query(UPSERT, [JSON.stringify([...last.values()])]);
    },
  };
}

function toRow(record: LogRecord): SagaRow | undefined {
  if (record.value === null) return undefined;
  let known: { saga: string; version: number; state: SagaState; startEvent: string };
  try {
    known = JSON.parse(record.value.toString('utf8')) as typeof known;
    const { state } = known;
    return {
      saga: known.saga,
      id: state.id,
      version: known.version,
      status: state.status,
      reason: state.reason ?? null,
      steps: state.steps,
      open: isOpen(state.status) || state.status === 'parked',
      start_event: JSON.parse(known.startEvent) as unknown,
      started_at: new Date(state.startedAt).toISOString(),
      updated_at: new Date(state.updatedAt).toISOString(),
    };
  } catch (cause) {
    throw new ContractError('saga status', ['value is not a saga state'], cause);
  }
}
