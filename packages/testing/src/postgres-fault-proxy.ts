import type { FaultLink, FrameFault } from './fault-link.js';
import { FaultRelay, type FaultControls, type ProxyTarget } from './fault-relay.js';
import { postgresSplitter, statementOf } from './postgres-frames.js';

/** A message of the Postgres protocol on its way. */
export interface ProxiedMessage {
  readonly from: 'client' | 'server';
  /** Its type byte as a character (`Q`, `Z`, `d`, …); empty for the startup message, which has none. */
  readonly type: string;
  /** The whole message, type and length included. */
  readonly frame: Buffer;
  /** The text of the last simple query or parse this connection sent; empty before. What a server's message answers. */
  readonly statement: string;
  /** Counts the messages of all connections and both directions, from 0. */
  readonly n: number;
}

export type DecideMessage = (message: ProxiedMessage) => FrameFault | undefined;

export type StruckMessage = FrameFault & { readonly message: ProxiedMessage };

export interface PostgresFaultProxy extends FaultControls<StruckMessage, DecideMessage> {
  /** The database's URL through the proxy. */
  readonly url: string;
}

/**
 * A fault proxy in front of Postgres, for queries and for logical replication. A rule sees every message of both directions; to lose the
 * answer to a COMMIT, drop what comes `from: 'server'` with `statement: 'COMMIT'`. Connections through it are not encrypted.
 */
export async function postgresFaultProxy(databaseUrl: string, decide?: DecideMessage): Promise<PostgresFaultProxy> {
  const url = new URL(databaseUrl);
  const target: ProxyTarget = { host: url.hostname, port: Number(url.port || 5432) };
  let n = 0;
  const relay = await new FaultRelay<StruckMessage, DecideMessage>({
    targets: [target],
    listen: [],
    decide: decide ?? (() => undefined),
    attach: (link, _target, rule) =>
      framed(link, (seen) => {
        const message = { ...seen, n: n++ };
        const fault = rule()(message);
        return fault && { ...fault, message };
      }),
  }).listen();
  url.port = String(relay.port);
  return Object.assign(relay, { url: url.href });
}

function framed(
  link: FaultLink<StruckMessage>,
  judge: (message: Omit<ProxiedMessage, 'n'>) => StruckMessage | undefined,
): void {
  let statement = '';
  const toServer = postgresSplitter({
    startup: true,
    onFrame(frame, type) {
      statement = statementOf(frame, type) ?? statement;
      link.pass('server', frame, judge({ from: 'client', type, frame, statement }));
    },
    // Refused in the server's name: an encrypted connection could not be looked into.
    onEncryptionRequest: () => link.client.write('N'),
  });
  const toClient = postgresSplitter({
    startup: false,
    onFrame: (frame, type) => link.pass('client', frame, judge({ from: 'server', type, frame, statement })),
  });
  link.client.on('data', toServer);
  link.server.on('data', toClient);
}
