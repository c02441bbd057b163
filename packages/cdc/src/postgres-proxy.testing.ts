import { createServer, connect as connectTo } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import type { Lsn } from './lsn.js';

/** A transaction as it passed from the server, or was held back. */
export interface PassingCommit {
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
}

/** A TCP proxy in front of Postgres that knows the frames of the replication protocol. */
export interface PostgresProxy {
  readonly url: string;
  /** Swallows standby status updates. */
  dropStatus: boolean;
  /** Holds back everything behind the next commit. False lets it pass. */
  holdBehindCommit: boolean;
  /** Commits that were let through, in order. */
  readonly passed: readonly PassingCommit[];
  /** Commit LSNs announced by the begins that are held back. */
  readonly heldBegins: readonly Lsn[];
  close(): Promise<void>;
}

const COPY_DATA = 0x64;
const [STATUS, XLOG_DATA] = [0x72, 0x77];
const [BEGIN, COMMIT] = [0x42, 0x43];
/** Type, length, XLogData with three int64: the pgoutput message begins here. */
const MESSAGE_AT = 30;

export async function postgresProxy(databaseUrl: string): Promise<PostgresProxy> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  const passed: PassingCommit[] = [];
  const held: { readonly to: Socket; readonly frame: Buffer }[] = [];
  const state = { dropStatus: false, holdBehindCommit: false, holding: false };
  const toClient = (to: Socket, frame: Buffer): void => {
    if (frame[0] !== COPY_DATA) {
      to.write(frame);
      return;
    }
    if (state.holding) {
      held.push({ to, frame });
      return;
    }
    to.write(frame);
    if (messageType(frame) !== COMMIT) return;
    passed.push({
      commitLsn: frame.readBigUInt64BE(MESSAGE_AT + 2) as Lsn,
      endLsn: frame.readBigUInt64BE(MESSAGE_AT + 10) as Lsn,
    });
    if (state.holdBehindCommit) state.holding = true;
  };
  const server = createServer((client) => {
    const upstream = connectTo(Number(target.port), target.hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => [client, upstream].forEach((other) => other.destroy()));
    }
    client.on(
      'data',
      frames(0, (frame, first) => {
        const isStatus = !first && frame[0] === COPY_DATA && frame[5] === STATUS;
        if (!isStatus || !state.dropStatus) upstream.write(frame);
      }),
    );
    upstream.on(
      'data',
      frames(1, (frame) => toClient(client, frame)),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = new URL(databaseUrl);
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    passed,
    get heldBegins() {
      return held
        .filter(({ frame }) => messageType(frame) === BEGIN)
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
      for (const { to, frame } of held.splice(0)) toClient(to, frame);
    },
    close: () =>
      new Promise<void>((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}

function messageType(frame: Buffer): number | undefined {
  return frame[5] === XLOG_DATA ? frame[MESSAGE_AT] : undefined;
}

/** Splits into frames. `firstHead`: bytes before the length of the first one (the startup packet has no type byte). */
function frames(firstHead: 0 | 1, each: (frame: Buffer, first: boolean) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  let first = true;
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      const head = first ? firstHead : 1;
      if (rest.length < head + 4) return;
      const end = head + rest.readUInt32BE(head);
      if (rest.length < end) return;
      const frame = rest.subarray(0, end);
      rest = rest.subarray(end);
      each(frame, first);
      first = false;
    }
  };
}
