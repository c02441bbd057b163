import type { CatalogTable } from '../catalog.js';
import type { SourceShape } from '../snapshot/chunk-query.js';
import type { SnapshotSource } from '../snapshot/snapshot-source.js';
import { TABLES } from './database.testing.js';
import type { SimulatedServer } from './server.testing.js';
import type { WalRow } from './wal-bytes.testing.js';

/** A request to the server and its answer, with what may go wrong in between. */
type Call = <T>(name: string, serve: () => T) => Promise<T>;

/** One session that reads for snapshots. Keys are numbers. */
export function simulatedSnapshots({ database }: SimulatedServer, call: Call): SnapshotSource {
  const visible = (table: CatalogTable) =>
    [...database.visible(table.spec.topic).values()].toSorted((a, b) => Number(a[0]) - Number(b[0]));
  return {
    emit: (prefix, content) => call('emit', () => database.message(prefix, content)),
    shape: (table) => call('shape', () => shapeOf(table)),
    async read({ table, stretch, limit, onRow }) {
      const { rows, facts } = await call('read', () => ({
        rows: visible(table)
          .filter(([id]) => stretch.after === null || Number(id) > Number(stretch.after[0]))
          .filter(([id]) => stretch.upTo === null || Number(id) <= Number(stretch.upTo[0]))
          .slice(0, limit),
        facts: { snapshot: database.snapshot, readMicros: database.micros, shape: shapeOf(table) },
      }));
      for (const row of rows) onRow(lineOf(row));
      return facts;
    },
    expect: (table) => call('expect', () => ({ rows: visible(table).length, width: 50 })),
    boundaries: (table, _shape, _rows, parts) =>
      call('boundaries', () => {
        const ids = visible(table).map(([id]) => id!);
        const cuts = Array.from({ length: parts - 1 }, (_, i) => ids[Math.floor((ids.length * (i + 1)) / parts)]);
        return [...new Set(cuts.filter((id) => id !== undefined))].map((id) => [id]);
      }),
    hasNullKey: () => call('null-key', () => false),
    async writersEnded(table, clock, signal) {
      const waited = new Set(await call('writers', () => database.writers(table.spec.topic)));
      for (;;) {
        const now = await call('writers', () => database.writers(table.spec.topic));
        if (signal.aborted || !now.some((xid) => waited.has(xid))) break;
        await clock.wait(5, signal);
      }
      return call('writers', () => database.snapshot);
    },
    end: () => Promise.resolve(),
  };
}

function shapeOf(table: CatalogTable): SourceShape {
  const { columns } = TABLES.find(({ name }) => name === table.spec.topic)!;
  const typed = columns.map(({ name, typeOid }) => ({ name, typeOid, type: typeOid === 23 ? 'integer' : 'text' }));
  return { from: `ONLY ${table.sqlName}`, columns: typed, filter: null };
}

/** As COPY prints it; nothing in these rows needs an escape. */
function lineOf(row: WalRow): Buffer {
  return Buffer.from(`${row.map((value) => value ?? '\\N').join('\t')}\n`);
}
