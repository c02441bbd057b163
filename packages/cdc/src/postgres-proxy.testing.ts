import { postgresFaultProxy, type ProxiedMessage } from '@headwater/testing';
import type { Lsn } from './lsn.js';

/** A transaction as it passed from the server, or was held back. */
export interface PassingCommit {
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
}

/** A fault proxy in front of Postgres that knows the messages of logical replication. */
export interface PostgresProxy {
  readonly url: string;
  /** Swallows standby status updates. */
  dropStatus: boolean;
  /** Holds back everything behind the next commit. False lets it pass. */
  holdBehindCommit: boolean;
  /** Commits that were let through, in order. */
  readonly passed: readonly PassingCommit[];
  /** What the last status update that was let through has acknowledged. */
  readonly acknowledged: Lsn | undefined;
  /** Commit LSNs announced by the begins that are held back. */
  readonly heldBegins: readonly Lsn[];
  close(): Promise<void>;
}

const [STATUS, XLOG_DATA] = [0x72, 0x77];
const [BEGIN, COMMIT] = [0x42, 0x43];
/** Type, length, XLogData with three int64: the pgoutput message begins here. */
const MESSAGE_AT = 30;
/** Type, length, status update with the LSN written: then the one flushed. */
const FLUSHED_AT = 14;

export async function postgresProxy(databaseUrl: string): Promise<PostgresProxy> {
  const passed: PassingCommit[] = [];
  const held: ProxiedMessage[] = [];
  const state = {
    dropStatus: false,
    holdBehindCommit: false,
    holding: false,
    acknowledged: undefined as Lsn | undefined,
  };
  const proxy = await postgresFaultProxy(databaseUrl, (message) => {
    if (message.type !== 'd') return undefined;
    if (message.from === 'client') {
      if (message.frame[5] !== STATUS) return undefined;
      if (state.dropStatus) return { act: 'drop' };
      state.acknowledged = message.frame.readBigUInt64BE(FLUSHED_AT) as Lsn;
      return undefined;
    }
    if (state.holding) {
      held.push(message);
      // Those behind the first one wait with it.
      return held.length === 1 ? { act: 'hold' } : undefined;
    }
    passed.push(...commitIn(message));
    state.holding = state.holdBehindCommit && commitIn(message).length > 0;
    return undefined;
  });
  return {
    url: proxy.url,
    passed,
    get acknowledged() {
      return state.acknowledged;
    },
    get heldBegins() {
      return held
        .filter((message) => messageType(message) === BEGIN)
        .map(({ frame }) => frame.readBigUInt64BE(MESSAGE_AT + 1) as Lsn);
    },
    get dropStatus() {
      return state.dropStatus;
    },
    set dropStatus(drop) {
      state.dropStatus = drop;
    },
    get holdBehindCommit() {
      return state.holdBehindCommit;
    },
    set holdBehindCommit(hold) {
      state.holdBehindCommit = hold;
      if (hold) return;
      state.holding = false;
      passed.push(...held.splice(0).flatMap(commitIn));
      void proxy.release();
    },
    close: () => proxy.close(),
  };
}

function commitIn(message: ProxiedMessage): PassingCommit[] {
  if (messageType(message) !== COMMIT) return [];
  const { frame } = message;
  return [
    {
      commitLsn: frame.readBigUInt64BE(MESSAGE_AT + 2) as Lsn,
      endLsn: frame.readBigUInt64BE(MESSAGE_AT + 10) as Lsn,
    },
  ];
}

function messageType({ frame }: ProxiedMessage): number | undefined {
  return frame[5] === XLOG_DATA ? frame[MESSAGE_AT] : undefined;
}
