import { describe, expect, it } from '@jest/globals';
import { diagnose } from './diagnose.js';
import type { SetupFacts } from './diagnose.js';

const GOOD: SetupFacts = {
  versionNum: 180_004,
  walLevel: 'logical',
  inRecovery: false,
  slots: { max: 10, used: 3, own: 'none' },
  senders: { max: 10, used: 4 },
  role: { name: 'capture', replication: true, createsInDatabase: false },
  database: 'shop',
  generatedColumns: 'none',
  replicationRefused: undefined,
  unreadable: [],
  publication: { name: 'p', exists: true, fits: true, mayChange: false, tables: [] },
};
const tables = [
  { sqlName: 'public.a', partitioned: false },
  { sqlName: 'public."B"', partitioned: true },
];
const full = { max: 1, used: 1 };
const refused = (code: string) => ({ replicationRefused: { code, message: 'no' } });

/** What is wrong with the server, and for each what is found and part of its fix. */
const TABLE: readonly (readonly [string, Partial<SetupFacts>, readonly (readonly [about: string, fix: RegExp])[]])[] = [
  ['nothing', {}, []],
  ['old', { versionNum: 120_010 }, [['version', /Upgrade/]]],
  [
    'generated columns before 18',
    { versionNum: 170_001, generatedColumns: 'stored' },
    [['generatedColumns', /Leave it out/]],
  ],
  ['wal_level', { walLevel: 'replica' }, [['wal_level', /wal_level = logical and restart/]]],
  ['no free slot', { slots: { ...full, own: 'none' } }, [['max_replication_slots', /max_replication_slots = 2/]]],
  ['no free slot, but one of its own', { slots: { ...full, own: 'idle' } }, []],
  ['no free walsender for the stream', { senders: full }, [['max_wal_senders', /max_wal_senders = 3/]]],
  ['the owner has the walsenders', { senders: full, slots: { max: 9, used: 1, own: 'active' } }, []],
  ['no walsender for commands', { ...refused('53300') }, [['max_wal_senders', /max_wal_senders = 6/]]],
  ['no right to replicate', { ...refused('42501') }, [['role', /ALTER ROLE "capture" REPLICATION;/]]],
  ['a right from elsewhere', { role: { ...GOOD.role, replication: false } }, []],
  [
    'neither walsender nor right',
    { ...refused('53300'), role: { ...GOOD.role, replication: false } },
    [
      ['max_wal_senders', /restart/],
      ['role', /REPLICATION/],
    ],
  ],
  ['no line', { ...refused('28000') }, [['pg_hba.conf', /host "shop" "capture".*pg_reload_conf/]]],
  [
    'unreadable tables',
    {
      unreadable: [
        { sqlName: 'public.a', schema: 'public', usage: true },
        { sqlName: 'x.b', schema: 'x', usage: false },
      ],
    },
    [
      ['public.a', /^GRANT SELECT ON public.a TO "capture";$/],
      ['x.b', /^GRANT USAGE ON SCHEMA x TO "capture"; GRANT SELECT ON x.b TO "capture";$/],
    ],
  ],
  [
    'no publication',
    { publication: { name: 'P', exists: false, fits: false, mayChange: false, tables } },
    [['publication P', /CREATE PUBLICATION "P" FOR TABLE ONLY public.a, public."B" WITH \(publish = /]],
  ],
  [
    'no publication, and the right to make it',
    { publication: { ...GOOD.publication!, fits: false, mayChange: true } },
    [],
  ],
  [
    'another publication',
    { publication: { name: 'P', exists: true, fits: false, mayChange: false, tables } },
    [['publication P', /ALTER PUBLICATION "P" SET TABLE ONLY public.a, public."B"; ALTER PUBLICATION "P" SET \(/]],
  ],
  ['no publication on a standby', { inRecovery: true, publication: { ...GOOD.publication!, fits: false } }, []],
];

describe('diagnosis of a server', () => {
  it.each(TABLE)('finds %s', (_, wrong, found) => {
    const findings = diagnose({ ...GOOD, ...wrong });
    expect(findings.map(({ about }) => about)).toEqual(found.map(([about]) => about));
    found.forEach(([, fix], i) => expect(findings[i]!.fix).toMatch(fix));
    expect(findings.every(({ severity }) => severity === 'fault')).toBe(true);
  });
});
