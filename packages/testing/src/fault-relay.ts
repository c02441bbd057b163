import { connect, createServer, type Server, type Socket } from 'node:net';
import { FaultLink, type FrameFault, type HeldFrame, type LinkOwner } from './fault-link.js';

/** Where a proxy connects to. Read at each connection, so that it may be filled in later. */
export interface ProxyTarget {
  readonly host: string;
  readonly port: number;
}

/** What every fault proxy can, whatever it frames. */
export interface FaultControls<Struck, Decide> {
  /** The rule; may be replaced at any time. */
  decide: Decide;
  readonly host: string;
  /** The port in front of the first target. */
  readonly port: number;
  /** One port per target, in their order. */
  readonly ports: readonly number[];
  /** Faults that struck so far, in order. */
  readonly log: readonly Struck[];
  /** Resolves when `log` holds at least `count`. */
  strikes(count: number): Promise<void>;
  /** Closes every connection; new ones are accepted. */
  cutAll(): void;
  /**
   * Lets go what `hold` and `keep` took, in the order in which it came; `which` chooses, all of it by default. Resolves when the servers
   * have answered these requests, or cannot any more.
   */
  release(which?: (struck: Struck) => boolean): Promise<void>;
  /** Half-open: connections stay, nothing passes in either direction, new ones are accepted and stay silent. */
  pause(): void;
  resume(): void;
  /** Cuts everything and stops listening; may be called twice. */
  close(): Promise<void>;
}

export interface FaultRelayOptions<Struck extends FrameFault, Decide> {
  readonly targets: readonly ProxyTarget[];
  /** Port per target; a free one where there is none. */
  readonly listen: readonly number[];
  readonly decide: Decide;
  /** Frames what comes on a new link and passes it on, by the rule of the moment. */
  readonly attach: (link: FaultLink<Struck>, target: number, rule: () => Decide) => void;
}

/** The sockets of a fault proxy. */
export class FaultRelay<Struck extends FrameFault, Decide> implements FaultControls<Struck, Decide>, LinkOwner<Struck> {
  decide: Decide;
  readonly host = '127.0.0.1';
  readonly log: Struck[] = [];
  readonly ports: number[] = [];
  readonly #links = new Set<FaultLink<Struck>>();
  readonly #servers: Server[] = [];
  readonly #held: HeldFrame<Struck>[] = [];
  readonly #waiting: { readonly count: number; readonly reached: () => void }[] = [];
  readonly #options: FaultRelayOptions<Struck, Decide>;
  #paused = false;

  constructor(options: FaultRelayOptions<Struck, Decide>) {
    this.#options = options;
    this.decide = options.decide;
  }

  async listen(): Promise<this> {
    for (const [index, target] of this.#options.targets.entries()) {
      const server = createServer((client) => this.#link(client, target, index));
      this.#servers.push(server);
      this.ports.push(await listening(server, this.#options.listen[index] ?? 0));
    }
    return this;
  }

  get port(): number {
    return this.ports[0]!;
  }

  strikes(count: number): Promise<void> {
    if (this.log.length >= count) return Promise.resolve();
    return new Promise((reached) => this.#waiting.push({ count, reached }));
  }

  cutAll(): void {
    for (const link of this.#links) link.cut();
  }

  async release(which: (struck: Struck) => boolean = () => true): Promise<void> {
    const chosen = this.#held.filter(({ struck }) => which(struck));
    for (const one of chosen) this.#held.splice(this.#held.indexOf(one), 1);
    await Promise.all(chosen.map(({ pass }) => pass()));
  }

  pause(): void {
    this.#paused = true;
    for (const { client, server } of this.#links) for (const socket of [client, server]) socket.pause();
  }

  resume(): void {
    this.#paused = false;
    for (const { client, server } of this.#links) for (const socket of [client, server]) socket.resume();
  }

  async close(): Promise<void> {
    for (const link of this.#links) link.destroy();
    const open = this.#servers.filter((server) => server.listening);
    await Promise.all(open.map((server) => new Promise((resolve) => server.close(resolve))));
  }

  strike(struck: Struck): void {
    this.log.push(struck);
    for (const { count, reached } of this.#waiting) if (this.log.length >= count) reached();
  }

  hold(held: HeldFrame<Struck>): void {
    this.#held.push(held);
  }

  over(link: FaultLink<Struck>): void {
    this.#links.delete(link);
  }

  #link(client: Socket, target: ProxyTarget, index: number): void {
    const link = new FaultLink<Struck>(client, connect(target.port, target.host), this);
    this.#links.add(link);
    this.#options.attach(link, index, () => this.decide);
    if (this.#paused) for (const socket of [client, link.server]) socket.pause();
  }
}

function listening(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' && address ? address.port : port);
    });
  });
}
