import type { ResolvedOptions } from './capture.options.js';
import type { Lsn } from './lsn.js';
import type { Position } from './position.js';
import type { SnapshotState } from './snapshot/snapshot-state.js';
import type { ServerFacts } from './verify-slot.js';

/** What the machine has to know of the options. */
export type MachineOptions = Pick<ResolvedOptions, 'name' | 'slot' | 'publication' | 'snapshot'>;

/** What was tried in vain since capture last published something, and how often a stream was lost in all. */
export interface Tally {
  readonly failures: number;
  readonly waits: number;
  readonly reconnects: number;
}

/** Where to go when everything of this connection is closed. */
export type After =
  | { readonly do: 'again' | 'stop' }
  | { readonly do: 'wait'; readonly holder: string }
  | { readonly do: 'retry' }
  | { readonly do: 'halt'; readonly error: unknown };

/** What `surveyed` brings: the server first, then the position, so that the position is never the older one. */
export interface Survey {
  readonly server: ServerFacts;
  readonly position: Position | undefined;
  readonly keys: Position['keys'];
}

/** A slot that was just made: everything committed in the WAL before `lsn` was visible then. */
export interface MadeSlot {
  readonly lsn: Lsn;
}

/** What is made before a stream, or the next look, is right: the plan, and what of it is still to be done, the present step first. */
export interface Preparation extends Survey {
  readonly plan: 'resume' | 'adopt' | 'create' | 'snapshot' | 'finish';
  readonly steps: readonly PrepareStep[];
  readonly publication: number;
  readonly slot: MadeSlot | undefined;
  /** Begins with the position that is written. */
  readonly begins: SnapshotState | undefined;
}

export type PrepareStep = 'publication' | 'mark' | 'drop' | 'unpublish' | 'create' | 'position' | 'done';

interface States {
  readonly idle: unknown;
  readonly connecting: unknown;
  /** `slot`: our own connection has it, and the log is fenced. `fenced lock`: the log is fenced under the lock. */
  readonly verifying: { readonly hold: 'nothing' | 'lock' | 'fenced lock' | 'slot' };
  /** Asks for the lock under which slot, publication and first position are made. */
  readonly locking: unknown;
  /** Asks for the slot, by streaming from it. */
  readonly acquiring: unknown;
  /** `spent`: the stream that has the slot was read from, and what it told is in no position. Only a new one tells it again. */
  readonly fencing: { readonly hold: 'lock' | 'slot'; readonly spent: boolean };
  readonly preparing: Preparation;
  /** Snapshots run beside the stream, and are none of the machine's business until the last one is over. */
  readonly streaming: unknown;
  /** Publishes what was received in whole transactions. */
  readonly draining: { readonly next: 'stop' | 'again' };
  /** The log fails, and the slot is kept meanwhile. */
  readonly holding: { readonly spent: boolean };
  readonly closing: { readonly after: After };
  /** Another connection has the slot or the lock. */
  readonly waiting: unknown;
  readonly retrying: unknown;
  readonly stopped: unknown;
  readonly halted: { readonly error: unknown };
}

export type StateName = keyof States;
export type StateOf<N extends StateName> = { [K in N]: { readonly name: K; readonly tally: Tally } & States[K] }[N];
export type MachineState = StateOf<StateName>;

interface Events {
  readonly start: unknown;
  readonly stop: unknown;
  readonly connected: unknown;
  readonly surveyed: Survey;
  /** `held: false`: another session has the lock. */
  readonly locked: { readonly held: boolean };
  readonly acquired: unknown;
  readonly fenced: unknown;
  /** One step of a preparation, with what it found out. */
  readonly prepared: { readonly publication?: number; readonly slot?: MadeSlot };
  /** Whole transactions were published. */
  readonly progressed: unknown;
  /** No snapshot is unfinished any more, and the position says so. */
  readonly snapshotsOver: unknown;
  /** The stream has ended, as it was asked to. */
  readonly drained: unknown;
  readonly failed: { readonly error: unknown };
  /** Stream and sessions are closed, and nothing of them is under way any more. */
  readonly disconnected: unknown;
  readonly woke: unknown;
}

export type EventName = keyof Events;
export type EventOf<N extends EventName> = { [K in N]: { readonly name: K } & Events[K] }[N];
export type MachineEvent = EventOf<EventName>;

/** What is to be done. What asks is answered by one event, or by `failed`. */
export type Effect =
  | { readonly do: 'connect' | 'survey' | 'lock' | 'fence' }
  /** Streams from the slot. `confirmed`: all that may be acknowledged before the position is read again. */
  | { readonly do: 'acquire'; readonly confirmed: Lsn }
  | { readonly do: 'publication' | 'drop-slot' | 'drop-publication' | 'create-slot' }
  /** With the position, the snapshot that begins at it. */
  | { readonly do: 'write'; readonly position: Position; readonly begins?: SnapshotState | undefined }
  /** Publishes from the stream, and the snapshots beside it: `progressed` and `snapshotsOver` any number of times, then `drained` or `failed`. */
  | { readonly do: 'stream'; readonly position: Position }
  /** Ends `stream` with what is complete. Not answered by itself. */
  | { readonly do: 'drain' }
  /** Ends whatever goes on; answered by `disconnected`, never by `failed`. */
  | { readonly do: 'disconnect' }
  /** About `ms`, so that instances do not march in step. */
  | { readonly do: 'sleep'; readonly ms: number }
  /** As `sleep`, then asks the log anything. Fails when it does not answer, and at once when the stream is lost. */
  | { readonly do: 'hold'; readonly ms: number }
  /** These only tell. `ready`: start() may resolve. `end`: capture is over. */
  | { readonly do: 'ready' }
  | { readonly do: 'log'; readonly level: 'info' | 'warn'; readonly message: string }
  | { readonly do: 'report'; readonly error: unknown }
  | { readonly do: 'end'; readonly error?: unknown };

export interface Transition {
  readonly state: MachineState;
  readonly effects: readonly Effect[];
}
