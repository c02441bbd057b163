import type { Clock } from '@headwater/core';
import type { Random } from '@headwater/testing';
import type { Lsn } from '../lsn.js';
import { maxLsn } from '../lsn.js';
import type { MadeSlot } from '../machine-states.js';
import type { ServerFacts } from '../verify-slot.js';
import { SimulatedDatabase, TABLES } from './database.testing.js';
import { Walsender } from './walsender.testing.js';
import type { SimulatedSlot, WalsenderOptions } from './walsender.testing.js';

export type ServerWitness = Pick<WalsenderOptions, 'fate' | 'flushed' | 'saw' | 'keepalivesFirst'>;

/** One Postgres with one slot at most: what one request does to it, at one instant. */
export class SimulatedServer {
  readonly database: SimulatedDatabase;
  /** Where the slots stood that were made so far: what was committed below the last of these is in a snapshot, or in none. */
  readonly slotsMadeAt: Lsn[] = [];
  readonly #locks = new Map<string, object>();
  #slot: SimulatedSlot | undefined;
  #publication: number | undefined;
  #oid = 20_000;
  #pid = 100;

  constructor(
    private readonly clock: Clock,
    private readonly random: Random,
    private readonly witness: ServerWitness,
  ) {
    this.database = new SimulatedDatabase(clock);
  }

  get slot(): SimulatedSlot | undefined {
    return this.#slot;
  }

  facts(name: string, _publication: string): ServerFacts {
    const slot = this.#slot?.name === name ? this.#slot : undefined;
    return {
      systemId: '1',
      timeline: 1,
      timelineSwitch: undefined,
      maxSlotWalKeepSize: '-1',
      slot: slot && {
        confirmedFlushLsn: slot.confirmed,
        walStatus: slot.walStatus,
        invalidationReason: null,
        activePid: slot.walsender?.pid ?? null,
        plugin: 'pgoutput',
      },
      publication: this.#publication,
    };
  }

  lock(name: string, session: object): boolean {
    const holder = this.#locks.get(name);
    if (holder === undefined) this.#locks.set(name, session);
    return holder === undefined || holder === session;
  }

  unlock(session: object): void {
    for (const [name, holder] of this.#locks) if (holder === session) this.#locks.delete(name);
  }

  ensurePublication(): number {
    this.#publication ??= ++this.#oid;
    return this.#publication;
  }

  createSlot(name: string): MadeSlot {
    if (this.#slot !== undefined) throw refusal('42710', `replication slot "${name}" already exists`);
    this.database.write(56);
    const lsn = this.database.lsn;
    this.#slot = { name, confirmed: lsn, walStatus: 'reserved', walsender: undefined };
    this.slotsMadeAt.push(lsn);
    return { lsn };
  }

  dropSlot(name: string): void {
    if (this.#slot === undefined) return;
    if (this.#slot.walsender !== undefined) throw active(name, this.#slot.walsender.pid);
    this.#slot = undefined;
  }

  /** As pg_replication_slot_advance. */
  advanceSlot(): boolean {
    const slot = this.#slot;
    if (slot === undefined || slot.walsender !== undefined || slot.confirmed >= this.database.lsn) return false;
    slot.confirmed = this.database.lsn;
    return true;
  }

  dropPublication(): void {
    this.#publication = undefined;
  }

  /** `from`: what the client asks for; Postgres moves it forward to the slot in silence. */
  startWalsender(name: string, clientClock: Clock, from: Lsn): Walsender {
    const slot = this.#slot;
    if (slot === undefined) throw refusal('42704', `replication slot "${name}" does not exist`);
    if (slot.walsender !== undefined) {
      this.witness.saw('slot busy');
      throw active(name, slot.walsender.pid);
    }
    const { database, clock, random } = this;
    const options = { database, slot, clock, clientClock, random: random.fork(), pid: ++this.#pid };
    const walsender = new Walsender({ ...options, ...this.witness, from: maxLsn(slot.confirmed, from) });
    slot.walsender = walsender;
    return walsender;
  }

  /** What a re-read asks: a snapshot, and the row as it sees it. */
  select(text: string, values: readonly unknown[]): { readonly rows: readonly (string | null)[][] } {
    const [, columns, from] = /\(SELECT true, (.*) FROM public\.(\w+) WHERE "id" = \$1\)/.exec(text) ?? [];
    const table = TABLES.find(({ name }) => name === from);
    if (table === undefined || columns === undefined) throw refusal('0A000', `not simulated: ${text}`);
    const row = this.database.visible(table.name).get(String(values[0]));
    const wanted = columns.split(', ').map((name) => table.columns.findIndex((of) => `"${of.name}"` === name));
    const { xmin, xmax, running } = this.database.snapshot;
    if (running.size > 0) this.witness.saw('re-read beside an unseen transaction');
    const snapshot = `${xmin}:${xmax}:${[...running].join(',')}`;
    return { rows: [[snapshot, ...(row === undefined ? [null] : ['t', ...wanted.map((i) => row[i] ?? null)])]] };
  }
}

function active(name: string, pid: number): Error {
  return refusal('55006', `replication slot "${name}" is active for PID ${pid}`);
}

function refusal(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}
