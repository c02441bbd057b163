import { HeadwaterError } from '../errors/headwater.error.js';
import type { HandOver } from './co-partitions.js';
import type { Assignment, Membership, Share, Tenure } from './log.js';

type Identity = Pick<Membership, 'groupId' | 'memberId' | 'instanceId'>;

/**
 * The bookkeeping of a tenure, for drivers: a driver tells it of every generation, the work releases what it is asked for.
 *
 * A share is held until it is released, whatever generation it is; a driver's join tells the group of all that is held (`claims`), and a group
 * gives nothing on that somebody claims. So a member that took part in every generation may commit for all it holds in any of them. One that
 * missed a generation may not: `end` it.
 */
export class HeldTenure implements Tenure {
  readonly membership: Membership;
  readonly #topics: readonly string[];
  readonly #elapsed: () => number;
  readonly #changed: () => void;
  readonly #over = new AbortController();
  readonly #more = new Bell();
  readonly #renewals = new Bell();
  #shares: readonly HeldShare[] = [];
  #given: ReadonlySet<number> = new Set();
  #coming: readonly number[] = [];
  #generation: number;
  #joining = false;
  /** Released, and not told to the group. */
  readonly #owed = new Set<number>();

  /** `elapsed`: monotonic, in milliseconds. `changed`: called when something was released, and at the end. */
  constructor(
    identity: Identity & { readonly generation: number },
    topics: readonly string[],
    elapsed: () => number,
    changed: () => void,
  ) {
    this.#elapsed = elapsed;
    this.#generation = identity.generation;
    const renewed = (stale: number) => this.#renewed(stale);
    this.membership = membershipOf(identity, () => this.#generation, renewed);
    this.#topics = topics;
    this.#changed = changed;
  }

  get shares(): readonly Share[] {
    return this.#shares;
  }

  get coming(): readonly number[] {
    return this.#coming;
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  get generation(): number {
    return this.#generation;
  }

  /** The partition numbers to tell when joining. */
  get claims(): readonly number[] {
    return this.#shares.map(({ partition }) => partition);
  }

  /** Something was released that the group does not know to be free: join again, so that it can give it on. */
  get owing(): boolean {
    return this.#owed.size > 0;
  }

  /** Asked back and not released; nothing once everything is lost. */
  get returning(): readonly number[] {
    return this.#returning.map(({ partition }) => partition);
  }

  /** How long until something that was asked back has not been released for `limitMs`; Infinity: nothing is asked back. */
  leftMs(limitMs: number): number {
    return Math.min(Infinity, ...this.#returning.map(({ askedAt }) => askedAt + limitMs - this.#elapsed()));
  }

  /** Whether the member is about to be in another generation. Offsets that the log refuses meanwhile wait for that. */
  get joining(): boolean {
    return this.#joining;
  }

  /** The claims as they are now are told to the group. */
  join(): void {
    this.#joining = true;
    this.#owed.clear();
  }

  /**
   * What the generation gives the member; what it holds besides is asked back. The join is over, and the member commits under this generation: not
   * before its plan was stored, because until then the generation may be lost with its coordinator, and another one of that number be made.
   */
  accept(generation: number, { given, asked, coming }: HandOver): void {
    if (this.#over.signal.aborted) return;
    this.#generation = generation;
    this.#joining = false;
    this.#given = new Set(given);
    for (const n of given) this.#owed.delete(n);
    // Released before it was asked for, or by a former process that was this static member.
    for (const n of asked) if (!this.claims.includes(n)) this.#owed.add(n);
    const fewer = coming.length < this.#coming.length;
    this.#coming = coming;
    for (const share of this.#shares) if (!this.#given.has(share.partition)) this.#revoke(share);
    this.#fill();
    if (fewer) this.#more.ring();
    this.#renewals.ring();
  }

  /** The work has settled: nothing is taken any more. */
  rest(): void {
    for (const share of this.#shares) {
      share.isTaken = false;
      if (share.signal.aborted) this.#release(share);
    }
  }

  /** Everything is lost. */
  end(): void {
    if (this.#over.signal.aborted) return;
    this.#joining = false;
    this.#over.abort();
    for (const share of this.#shares) share.end(this.#elapsed());
    this.#more.ring();
    this.#renewals.ring();
    this.#changed();
  }

  get #returning(): readonly HeldShare[] {
    return this.#over.signal.aborted ? [] : this.#shares.filter(({ signal }) => signal.aborted);
  }

  next(): Promise<void> {
    return this.#over.signal.aborted ? Promise.resolve() : this.#more.next();
  }

  async #renewed(stale: number): Promise<boolean> {
    while (this.#generation === stale && this.#joining) await this.#renewals.next();
    return this.#generation !== stale && !this.#over.signal.aborted;
  }

  #fill(): void {
    const missing = [...this.#given].filter((n) => !this.claims.includes(n));
    const fresh = missing.map((n) => new HeldShare(n, this.#topics, (share) => this.#release(share)));
    if (fresh.length === 0) return;
    this.#shares = [...this.#shares, ...fresh].sort((a, b) => a.partition - b.partition);
    this.#more.ring();
  }

  #revoke(share: HeldShare): void {
    share.end(this.#elapsed());
    if (!share.isTaken) this.#release(share);
  }

  #release(share: HeldShare): void {
    if (this.#over.signal.aborted || !this.#shares.includes(share)) return;
    if (!share.signal.aborted) throw notAsked(this.membership.groupId, share.partition);
    this.#shares = this.#shares.filter((held) => held !== share);
    // A later generation may have given it to this member again.
    if (this.#given.has(share.partition)) return this.#fill();
    this.#owed.add(share.partition);
    this.#changed();
  }
}

/** A change before the wait is not remembered: look first, then wait. */
class Bell {
  #waiting: (() => void)[] = [];

  ring(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

class HeldShare implements Share {
  readonly partition: number;
  readonly partitions: Share['partitions'];
  isTaken = false;
  askedAt = Infinity;
  readonly #asked = new AbortController();
  readonly #release: (share: HeldShare) => void;

  constructor(partition: number, topics: readonly string[], release: (share: HeldShare) => void) {
    this.partition = partition;
    this.partitions = topics.map((topic) => ({ topic, partition }));
    this.#release = release;
  }

  get signal(): AbortSignal {
    return this.#asked.signal;
  }

  take(): void {
    this.isTaken = true;
  }

  release(): void {
    this.#release(this);
  }

  end(now: number): void {
    if (!this.signal.aborted) this.askedAt = now;
    this.#asked.abort();
  }
}

/** The work on a tenure of which every change is an end and a new beginning. */
export function wholly(work: (assignment: Assignment) => Promise<void>): (tenure: Tenure) => Promise<void> {
  return async (tenure) => {
    while (!tenure.signal.aborted) {
      const { shares } = tenure;
      for (const share of shares) share.take();
      const over = new AbortController();
      const end = () => over.abort();
      const signals = [tenure.signal, ...shares.map(({ signal }) => signal)];
      for (const signal of signals) signal.addEventListener('abort', end);
      void untilMore(tenure, shares).then(end);
      // When the work is over it is of a generation that is over: nothing more is taken under it.
      let last: number | undefined;
      const generation = () => last ?? tenure.membership.generation;
      const renewed = async (stale: number) =>
        last === undefined && (await tenure.membership.renewed?.(stale)) === true;
      const membership = membershipOf(tenure.membership, generation, renewed);
      try {
        const partitions = shares.flatMap((share) => share.partitions).sort(byTopic);
        await work({ membership, partitions, signal: over.signal });
        if (!over.signal.aborted) await new Promise((resolve) => over.signal.addEventListener('abort', resolve));
      } finally {
        last = tenure.membership.generation - 1;
        for (const signal of signals) signal.removeEventListener('abort', end);
      }
      for (const share of tenure.shares) if (share.signal.aborted) share.release();
    }
  };
}

async function untilMore(tenure: Tenure, shares: readonly Share[]): Promise<void> {
  while (!tenure.signal.aborted && tenure.shares.every((share) => shares.includes(share))) await tenure.next();
}

/** A membership whose generation is what it is when it is read. */
function membershipOf(
  { groupId, memberId, instanceId }: Identity,
  generation: () => number,
  renewed: (stale: number) => Promise<boolean>,
): Membership {
  return {
    groupId,
    memberId,
    ...(instanceId === undefined ? {} : { instanceId }),
    get generation() {
      return generation();
    },
    renewed,
  };
}

function byTopic(a: { readonly topic: string }, b: { readonly topic: string }): number {
  return a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0;
}

function notAsked(groupId: string, partition: number): HeadwaterError {
  return new HeadwaterError(
    'LOG_SHARE_NOT_ASKED',
    `partition ${partition} of group ${groupId} was released though nobody asked for it. Release a share after its signal has aborted; stop the member to give back all.`,
    { facts: { groupId, partition } },
  );
}
