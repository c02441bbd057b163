import type { Clock } from '@headwater/core';
import type { Random } from '@headwater/testing';
import type { Client } from 'pg';
import type { AckPolicy } from '../ack-policy.js';
import type { ResolvedOptions } from '../capture.options.js';
import type { CatalogTable } from '../catalog.js';
import type { PgType } from '../json-types.js';
import type { Lsn } from '../lsn.js';
import type { MadeSlot } from '../machine-states.js';
import { OutboxMessages } from '../outbox-key.js';
import type { SnapshotSource } from '../snapshot/snapshot-source.js';
import type { PublicationSeen, Source, SourceConnection, SourceStream } from '../source.js';
import { SourceTables } from '../source-tables.js';
import type { ServerFacts } from '../verify-slot.js';
import { TABLES } from './database.testing.js';
import type { SimulatedServer } from './server.testing.js';
import { simulatedSnapshots } from './simulated-snapshots.testing.js';
import { SimulatedStream } from './simulated-stream.testing.js';
import type { Walsender } from './walsender.testing.js';

/** What happens to one call of the source. `kill`: to the process. */
export type SourceFate =
  { readonly act: 'lose-request' | 'lose-answer' | 'kill'; readonly when: 'before' | 'after' } | undefined;

export interface SimulatedSourceOptions {
  readonly server: SimulatedServer;
  /** Of the client's process. */
  readonly clock: Clock;
  readonly random: Random;
  readonly options: Pick<
    ResolvedOptions,
    'slot' | 'publication' | 'transactionalId' | 'inboundTimeoutMs' | 'maxQueuedBytes'
  >;
  readonly fate: (call: string) => SourceFate;
  readonly kill: () => void;
  readonly onStatus: (flush: Lsn, received: Lsn) => Lsn;
  readonly startLsn: () => Lsn;
  readonly received: (lsn: Lsn) => void;
}

export interface SimulatedSource extends Source {
  /** The server hears that the process is gone. */
  sever(): void;
}

/** The database edge of one process. */
export function simulatedSource(of: SimulatedSourceOptions): SimulatedSource {
  const open = new Set<SimulatedConnection>();
  return {
    async connect() {
      const messages = await OutboxMessages.of(WITHOUT_KEY);
      const connection = await call(of, 'connect', () => new SimulatedConnection(of, messages));
      open.add(connection);
      return connection;
    },
    sever() {
      for (const connection of open) connection.sever();
    },
  };
}

/** One request to the server and its answer, with what may go wrong in between. */
async function call<T>(
  { clock, random, fate, kill }: SimulatedSourceOptions,
  name: string,
  serve: () => T,
): Promise<T> {
  const fated = fate(name);
  await clock.wait(random.pick([0, 1, 3]));
  if (fated?.act === 'kill' && fated.when === 'before') {
    kill();
    await clock.wait(0);
  }
  if (fated?.act === 'lose-request') throw lost();
  const value = serve();
  if (fated?.act === 'kill') kill();
  await clock.wait(random.pick([0, 1, 3]));
  if (fated !== undefined) throw lost();
  return value;
}

class SimulatedConnection implements SourceConnection {
  readonly tables: SourceTables;
  readonly #session = {};
  readonly #walsenders: Walsender[] = [];
  #open = true;

  constructor(
    private readonly of: SimulatedSourceOptions,
    messages: OutboxMessages,
  ) {
    const catalog = TABLES.map(({ name, columns, replicaIdentity }): CatalogTable => ({
      spec: { table: `public.${name}`, topic: name },
      sqlName: `public.${name}`,
      partitioned: false,
      replicaIdentity,
      columns,
      names: columns.map((column) => column.name),
      keyColumns: columns.filter(({ key }) => key).map((column) => column.name),
    }));
    const sql = {
      query: (query: Query) => this.#call('re-read', () => this.of.server.select(query.text, query.values)),
    };
    this.tables = new SourceTables(
      sql as unknown as Client,
      catalog,
      new Map([[TEXT.oid, TEXT]]),
      messages,
      undefined,
      of.clock,
    );
  }

  facts(): Promise<ServerFacts> {
    const { slot, publication } = this.of.options;
    return this.#call('facts', () => this.of.server.facts(slot, publication));
  }

  timelineSwitch(): Promise<Lsn> {
    throw new Error('there is one timeline only');
  }

  lock(): Promise<boolean> {
    return this.#call('lock', () => this.of.server.lock(this.of.options.transactionalId, this.#session));
  }

  ensurePublication(): Promise<number> {
    return this.#call('publication', () => this.of.server.ensurePublication());
  }

  publication(): Promise<PublicationSeen> {
    const { slot, publication } = this.of.options;
    const look = () => ({ oid: this.of.server.facts(slot, publication).publication, changing: false });
    return this.#call('look', look);
  }

  dropSlot(): Promise<void> {
    return this.#call('drop-slot', () => this.of.server.dropSlot(this.of.options.slot));
  }

  createSlot(): Promise<MadeSlot> {
    return this.#call('create-slot', () => this.of.server.createSlot(this.of.options.slot));
  }

  dropPublication(): Promise<void> {
    return this.#call('drop-publication', () => this.of.server.dropPublication());
  }

  async snapshotSource(): Promise<SnapshotSource> {
    await this.#call('session', () => undefined);
    return simulatedSnapshots(this.of.server, (name, serve) => call(this.of, name, serve));
  }

  async stream(ack: AckPolicy): Promise<SourceStream> {
    const { server, options, clock } = this.of;
    const walsender = await this.#call('stream', () => server.startWalsender(options.slot, clock, this.of.startLsn()));
    this.#walsenders.push(walsender);
    return new SimulatedStream(walsender, ack, this.of);
  }

  sever(): void {
    this.of.server.unlock(this.#session);
    for (const walsender of this.#walsenders) walsender.hangUp();
  }

  async close(): Promise<void> {
    this.#open = false;
    await this.of.clock.wait(0);
    this.of.server.unlock(this.#session);
  }

  async #call<T>(name: string, serve: () => T): Promise<T> {
    if (!this.#open) throw lost();
    try {
      return await call(this.of, name, () => {
        const answer = serve();
        // The server may still do what a session asked that has ended meanwhile, but holds nothing for it.
        if (!this.#open) this.of.server.unlock(this.#session);
        return answer;
      });
    } catch (error) {
      // A session whose answer was lost is gone, and its locks with it.
      this.#open = false;
      this.of.server.unlock(this.#session);
      throw error;
    }
  }
}

/** A database in which nothing is signed. */
const WITHOUT_KEY = { query: () => Promise.resolve({ rows: [] }) } as unknown as Client;

const TEXT: PgType = { oid: 25, name: 'text', kind: 'b', elementOid: 0, delimiter: ',', baseOid: 0, fields: [] };

interface Query {
  readonly text: string;
  readonly values: readonly unknown[];
}

function lost(): Error {
  return Object.assign(new Error('connection terminated'), { code: 'ECONNRESET' });
}
