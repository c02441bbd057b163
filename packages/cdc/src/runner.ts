import { randomBytes } from 'node:crypto';
import { errorMessage } from '@headwater/core';
import type { LogWriter } from '@headwater/core';
import { AckPolicy } from './ack-policy.js';
import { topicsOf } from './capture.options.js';
import type { ResolvedOptions } from './capture.options.js';
import { CaptureError, tablesInvalid } from './cdc.errors.js';
import { cover, keepCovered } from './coverage.js';
import { fencedByWhom } from './fenced.js';
import type { Lsn } from './lsn.js';
import { IDLE, next } from './machine.js';
import type { Effect, MachineEvent, MachineState } from './machine-states.js';
import { positionRecord, readPosition } from './position.js';
import type { Position } from './position.js';
import { LearnedLimits } from './parking/learned-limits.js';
import { notCommitted } from './publish.errors.js';
import type { Published } from './publish.js';
import { pump } from './pump.js';
import { Snapshots } from './snapshot/snapshots.js';
import { SnapshotRecords, withTopicEnds } from './snapshot/snapshot-state.js';
import type { SnapshotState } from './snapshot/snapshot-state.js';
import type { SnapshotProgress } from './snapshot/progress.js';
import type { Source, SourceConnection, SourceStream } from './source.js';
import { ownTopicFaults } from './topic-faults.js';
import { publicationDropped } from './verify-slot.js';

/** What capture stands on besides its options: all of it can be simulated. */
export interface CapturePorts {
  readonly source: Source;
  /** At least 0, below 1: spreads pauses. */
  readonly random: () => number;
}

/** Who hears what a capture does. */
export interface RunnerEvents {
  ready(): void;
  /** Capture is over; without an error it was stopped or had nothing left to do. The log's writer is closed. */
  ended(error: unknown): void;
  reported(error: unknown): void;
  surveyed(position: Position | undefined): void;
  published(published: Published): void;
  ignored(error: CaptureError | undefined): void;
  wal(lsn: Lsn): void;
  /** Captured tables that the publication does not carry any more; told when it changes. */
  unpublished(tables: readonly string[]): void;
  /** How much is parked. */
  parked(parked: { readonly changes: number; readonly keys: number }): void;
}

/** How long a table may be unpublished, or another publication in the place of ours on an idle line, before it is noticed. */
const WATCH_INTERVAL_MS = 10_000;
/** How long a stop waits for the look at the publication that lets it acknowledge what it published last. */
const LAST_LOOK_MS = 2_000;

/** Performs what the machine asks for, and tells it what came of it. Decides nothing. */
export class CaptureRunner {
  readonly #writer: LogWriter;
  readonly #underWay = new Set<Promise<void>>();
  readonly #learned = new LearnedLimits();
  #state: MachineState = IDLE;
  /** Of the present connection: everything that waits for it ends with it. */
  #life = new AbortController();
  #drain = new AbortController();
  #connection: SourceConnection | undefined;
  #snapshots: Snapshots | undefined;
  #stream: { readonly of: SourceStream; readonly ack: AckPolicy } | undefined;

  constructor(
    private readonly options: ResolvedOptions,
    private readonly ports: CapturePorts,
    private readonly events: RunnerEvents,
  ) {
    const { log, transactionalId, transactionTimeoutMs } = options;
    this.#writer = log.writer({ transactionalId, transactionTimeoutMs });
  }

  /** How far the unfinished snapshots are. */
  get snapshots(): readonly SnapshotProgress[] {
    return this.#snapshots?.progress() ?? [];
  }

  get state(): MachineState {
    return this.#state;
  }

  tell(event: MachineEvent): void {
    const { state, effects } = next(this.options, this.#state, event);
    this.#state = state;
    for (const effect of effects) this.#begin(effect);
  }

  #begin(effect: Effect): void {
    switch (effect.do) {
      case 'drain':
        return this.#drain.abort();
      case 'ready':
        return this.events.ready();
      case 'log':
        return this.options.logger[effect.level](effect.message);
      case 'report':
        return this.events.reported(effect.error);
      case 'disconnect':
        return void this.#disconnect().then(() => this.tell({ name: 'disconnected' }));
      case 'end':
        return void this.#writer
          .close()
          .catch(() => {})
          .then(() => this.events.ended(effect.error));
      default: {
        const asked = this.#ask(effect).then(
          (event) => this.tell(event),
          (error: unknown) => this.tell({ name: 'failed', error }),
        );
        this.#underWay.add(asked);
        void asked.finally(() => this.#underWay.delete(asked));
      }
    }
  }

  async #ask(effect: Asking): Promise<MachineEvent> {
    const { source } = this.ports;
    const { log, positionTopic, name } = this.options;
    switch (effect.do) {
      case 'connect': {
        const faults = ownTopicFaults(this.options.tables, this.options);
        if (faults.length > 0) throw tablesInvalid(faults);
        const opening = source.connect().then((connection) => (this.#connection = connection));
        // Both are over when this is: what is still being opened could not be closed.
        const opened = await Promise.allSettled([opening, log.admin.ensureTopics(topicsOf(this.options))]);
        for (const of of opened) if (of.status === 'rejected') throw of.reason;
        return { name: 'connected' };
      }
      case 'survey':
        return this.#survey();
      case 'lock':
        return { name: 'locked', held: await this.#connected.lock() };
      case 'acquire': {
        const ack = new AckPolicy(effect.confirmed);
        this.#stream = { of: await this.#connected.stream(ack), ack };
        return { name: 'acquired' };
      }
      case 'fence':
        await this.#writer.fence();
        return { name: 'fenced' };
      case 'publication':
        return { name: 'prepared', publication: await this.#connected.ensurePublication() };
      case 'drop-slot':
        await this.#connected.dropSlot();
        return { name: 'prepared' };
      case 'create-slot':
        return { name: 'prepared', slot: await this.#connected.createSlot() };
      case 'drop-publication':
        await this.#connected.dropPublication();
        return { name: 'prepared' };
      case 'write': {
        const { position, begins } = effect;
        const records = new SnapshotRecords(positionTopic, name);
        const states = begins === undefined ? [] : records.begun(await this.#beginning(begins));
        const outcome = await this.#writer.transact([...states, positionRecord(positionTopic, name, position)]);
        if (outcome.outcome !== 'committed') throw notCommitted(outcome, this.#writer.transactionalId);
        this.events.surveyed(position);
        return { name: 'prepared' };
      }
      case 'stream':
        await this.#publish(effect.position);
        return { name: 'drained' };
      case 'sleep':
        await this.#pause(effect.ms);
        return { name: 'woke' };
      case 'hold':
        await Promise.race([this.#pause(effect.ms), this.#stream!.of.lost]);
        await log.admin.partitionCounts([positionTopic]);
        return { name: 'woke' };
    }
  }

  #pause(ms: number): Promise<void> {
    return this.options.clock.wait(ms * (0.75 + this.ports.random() / 2), this.#life.signal);
  }

  /** Fenced and not streaming yet: nobody writes to the topics of its tables. */
  #beginning(snapshot: SnapshotState): Promise<SnapshotState> {
    const { tables } = this.#connected.tables;
    const topicOf = (table: string) => tables.find(({ spec }) => spec.table === table)?.spec.topic;
    return withTopicEnds(snapshot, this.options.log, topicOf);
  }

  async #survey(): Promise<MachineEvent> {
    const { log, positionTopic, name } = this.options;
    const connection = this.#connected;
    let server = await connection.facts();
    // After the slot: a position is never behind what its writer has acknowledged, but for a marker that is under way.
    const position = await readPosition(log, positionTopic, name);
    if (position !== undefined && position.timeline !== server.timeline)
      server = { ...server, timelineSwitch: await connection.timelineSwitch(server.timeline, position.timeline) };
    this.events.surveyed(position);
    return { name: 'surveyed', server, position, keys: connection.tables.keys };
  }

  async #publish(position: Position): Promise<void> {
    const signalKey = position.signalKey ?? randomBytes(32).toString('hex');
    const connection = this.#connected;
    const open = () => connection.snapshotSource();
    const snapshots = await Snapshots.resume(this.options, { ...position, signalKey }, connection.tables, open).catch(
      (error: unknown) => this.#unlessMoved(position, error),
    );
    this.#snapshots = snapshots;
    const over = new AbortController();
    let failure: { readonly error: unknown } | undefined;
    const reading = snapshots.run(over.signal).catch((error: unknown) => {
      failure = { error };
      this.#drain.abort();
    });
    try {
      await this.#pump({ ...position, signalKey }, snapshots);
    } finally {
      over.abort();
      await reading;
      this.#snapshots = undefined;
    }
    if (failure !== undefined) throw failure.error;
  }

  /** A process that was stopped finds what another has gone on from: snapshots that are over are no damage then. */
  async #unlessMoved(position: Position, error: unknown): Promise<never> {
    const { log, positionTopic, name } = this.options;
    const now = await readPosition(log, positionTopic, name);
    if (now?.endLsn === position.endLsn) throw error;
    const message = `another capture has moved the position since it was read: ${errorMessage(error)} Capture reads it again.`;
    throw new CaptureError('CDC_PUBLISH_FAILED', message, {}, error);
  }

  async #pump(position: Position, snapshots: Snapshots): Promise<void> {
    const { of: stream, ack } = this.#stream!;
    const { clock, publication } = this.options;
    const { signal } = this.#life;
    const connection = this.#connected;
    let own = position;
    ack.resume(position.endLsn);
    const look = () => connection.publication(position.publication);
    const onCovered = () => stream.sendStatus();
    const coverage = { ack, publication, position, look, clock, onCovered };
    const lost = (error: unknown) => {
      if (!signal.aborted) this.tell({ name: 'failed', error });
    };
    void keepCovered(coverage, signal).catch(lost);
    void this.#watchPublication(position, signal).catch(lost);
    await pump({
      writer: this.#writer,
      stream,
      ack,
      tables: this.#connected.tables,
      options: this.options,
      position,
      window: snapshots.window,
      signal: this.#drain.signal,
      onPublished: (published) => {
        own = published.position;
        this.events.published(published);
        snapshots.published(published.position.endLsn);
        if (published.transactions > 0) this.tell({ name: 'progressed' });
        if (published.position.snapshots.length === 0) this.tell({ name: 'snapshotsOver' });
      },
      onIgnored: (error) => this.events.ignored(error),
      onWal: (lsn) => this.events.wal(lsn),
      learned: this.#learned,
      onParked: (parked) => this.events.parked(parked),
    }).catch(async (error: unknown) => {
      const { onRefused } = this.options;
      throw await fencedByWhom(onRefused === 'park' ? this.#learned.learn(error) : error, own, this.options);
    });
    await cover(coverage, LAST_LOOK_MS);
  }

  /** A table made again under its name is in no publication, and a publication made again leaves a hole: the stream itself never tells. */
  async #watchPublication(position: Position, signal: AbortSignal): Promise<void> {
    let known: string | undefined;
    while (!signal.aborted) {
      const facts = await this.#connected.facts();
      if (signal.aborted) return;
      const dropped = publicationDropped(this.options.publication, facts, position);
      if (dropped !== undefined) throw dropped;
      const { unpublished = [] } = facts;
      if (unpublished.join('\0') !== known) this.events.unpublished(unpublished);
      known = unpublished.join('\0');
      await this.options.clock.wait(WATCH_INTERVAL_MS, signal);
    }
  }

  async #disconnect(): Promise<void> {
    this.#life.abort();
    await this.#close();
    await Promise.all(this.#underWay);
    // What was being opened meanwhile.
    await this.#close();
    this.#life = new AbortController();
    this.#drain = new AbortController();
  }

  async #close(): Promise<void> {
    const [stream, connection] = [this.#stream, this.#connection];
    this.#stream = undefined;
    this.#connection = undefined;
    await stream?.of.close();
    await connection?.close();
  }

  get #connected(): SourceConnection {
    if (this.#connection === undefined) throw new Error('not connected: the machine asked too early, or too late');
    return this.#connection;
  }
}

type Asking = Exclude<Effect, { do: 'drain' | 'ready' | 'log' | 'report' | 'disconnect' | 'end' }>;
