import type { CatalogTable } from '../catalog.js';
import { quoteName } from '../postgres-session.js';

/** `fault`: capture refuses to start. `warning`: it runs, until this goes wrong. `advice`: worth a thought, nothing is wrong. */
export type Severity = 'fault' | 'warning' | 'advice';

export interface Finding {
  readonly severity: Severity;
  /** What it is about: a setting, a role, a table, a slot, a topic. */
  readonly about: string;
  readonly message: string;
  /** What to type or to set. */
  readonly fix: string;
}

/** What the server says of what a capture needs. */
export interface SetupFacts {
  readonly versionNum: number;
  readonly walLevel: string;
  readonly inRecovery: boolean;
  readonly slots: { readonly max: number; readonly used: number; readonly own: 'none' | 'idle' | 'active' };
  /** `used` counts the session for replication commands, when it is open. */
  readonly senders: { readonly max: number; readonly used: number };
  readonly role: { readonly name: string; readonly replication: boolean; readonly createsInDatabase: boolean };
  readonly database: string;
  /** As capture wants them. */
  readonly generatedColumns: 'none' | 'stored';
  /** SQLSTATE and message, when the session for replication commands was refused. */
  readonly replicationRefused: { readonly code: string; readonly message: string } | undefined;
  /** Tables that the role may not read whole, as SQL names. */
  readonly unreadable: readonly { readonly sqlName: string; readonly schema: string; readonly usage: boolean }[];
  /** Undefined when it was not looked at: there is none to compare while tables are wrong, or have filters. */
  readonly publication: PublicationFacts | undefined;
}

export interface PublicationFacts {
  readonly name: string;
  readonly exists: boolean;
  /** Publishes exactly the captured tables, with all operations. */
  readonly fits: boolean;
  /** The role may make or alter it: it owns what it has to. */
  readonly mayChange: boolean;
  readonly tables: readonly Pick<CatalogTable, 'sqlName' | 'partitioned'>[];
}

const OLDEST = 130_000;

/** What keeps a capture from starting on this server, each with its remedy. Pure. */
export function diagnose(facts: SetupFacts): readonly Finding[] {
  const role = quoteName(facts.role.name);
  const findings: Finding[] = [];
  const fault = (about: string, message: string, fix: string) =>
    findings.push({ severity: 'fault', about, message, fix });
  if (facts.versionNum < OLDEST)
    fault('version', `PostgreSQL ${Math.floor(facts.versionNum / 10_000)} is older than 13.`, 'Upgrade the server.');
  if (facts.generatedColumns === 'stored' && facts.versionNum < 180_000)
    fault(
      'generatedColumns',
      'generatedColumns "stored" needs Postgres 18.',
      'Leave it out: generated columns are absent then.',
    );
  if (facts.walLevel !== 'logical')
    fault('wal_level', `wal_level is "${facts.walLevel}".`, 'Set wal_level = logical and restart the server.');
  const { slots, senders, replicationRefused: refused } = facts;
  if (slots.own === 'none' && slots.used >= slots.max)
    fault(
      'max_replication_slots',
      `no slot is free: ${slots.used} of max_replication_slots = ${slots.max} are used.`,
      `Drop what nobody reads (SELECT slot_name FROM pg_replication_slots WHERE NOT active), or set max_replication_slots = ${slots.used + 1} or more and restart the server.`,
    );
  // A standby of the same capture needs its own walsender only when the owner has left two of them.
  if (refused?.code === '53300' || (slots.own !== 'active' && senders.used >= senders.max))
    fault(
      'max_wal_senders',
      `no walsender is free: ${senders.used} of max_wal_senders = ${senders.max} are used, a capture needs two.`,
      `Set max_wal_senders = ${senders.used + 2} or more and restart the server.`,
    );
  if (refused?.code === '42501' || (refused !== undefined && !facts.role.replication))
    fault('role', `role ${role} may not replicate.`, `ALTER ROLE ${role} REPLICATION;`);
  if (refused?.code.startsWith('28') === true)
    fault(
      'pg_hba.conf',
      `the server lets no replication session in: ${refused.message}.`,
      hbaFix(facts.database, facts.role.name),
    );
  for (const { sqlName, schema, usage } of facts.unreadable) {
    const grants = [
      ...(usage ? [] : [`GRANT USAGE ON SCHEMA ${schema} TO ${role};`]),
      `GRANT SELECT ON ${sqlName} TO ${role};`,
    ];
    fault(sqlName, `role ${role} may not read ${sqlName}.`, grants.join(' '));
  }
  if (facts.publication !== undefined && !facts.inRecovery)
    findings.push(...publicationFindings(facts.publication, role));
  return findings;
}

/** The line of pg_hba.conf that lets a role in. A session for logical replication is matched by its database, never by the word replication. */
export function hbaFix(database: string, role: string): string {
  return `Add to pg_hba.conf: host "${database}" "${role}" <address of capture>/32 scram-sha-256, then SELECT pg_reload_conf();`;
}

function publicationFindings({ name, exists, fits, mayChange, tables }: PublicationFacts, role: string): Finding[] {
  if (fits || mayChange) return [];
  const list = tables.map((table) => `${table.partitioned ? '' : 'ONLY '}${table.sqlName}`).join(', ');
  const options = `(publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`;
  const made = `CREATE PUBLICATION ${quoteName(name)}${list === '' ? '' : ` FOR TABLE ${list}`} WITH ${options};`;
  const altered = `ALTER PUBLICATION ${quoteName(name)} SET TABLE ${list}; ALTER PUBLICATION ${quoteName(name)} SET ${options};`;
  return [
    {
      severity: 'fault',
      about: `publication ${name}`,
      message: exists
        ? `publication "${name}" does not publish exactly the captured tables, and role ${role} may not alter it.`
        : `publication "${name}" does not exist, and role ${role} may not make it.`,
      fix: `As owner of the tables: ${exists ? altered : made}`,
    },
  ];
}

/** One line per finding, as they stand in an error. */
export const findingText = ({ message, fix }: Finding): string => `${message} ${fix}`;

export const fault = (about: string, message: string, fix: string): Finding => ({
  severity: 'fault',
  about,
  message,
  fix,
});
