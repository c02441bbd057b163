import { handOver, type HandOver, type Membership } from '@headwater/core';

export interface JoinRequest {
  readonly topics: readonly string[];
  /** Partition numbers it holds. */
  readonly owned: readonly number[];
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly instanceId?: string;
}

interface Member {
  readonly request: JoinRequest;
  /** Has asked for the generation that is being made. */
  joined: boolean;
  part: HandOver;
}

const NOTHING: HandOver = { given: [], asked: [], coming: [] };

/** What a member hears from its group. */
export type Standing = 'current' | 'join-again' | 'unknown' | 'fenced';

/**
 * One group: a generation is made when every member has joined it. Members that do not come in time are thrown out by `remove`, which the
 * caller calls when their time is over. Decides only: time is its caller's.
 */
export class GroupState {
  readonly groupId: string;
  readonly #members = new Map<string, Member>();
  /** Static members whose place another process has taken. */
  readonly #fenced = new Set<string>();
  #generation = 0;
  #preparing = false;
  #ids = 0;

  constructor(groupId: string) {
    this.groupId = groupId;
  }

  get preparing(): boolean {
    return this.#preparing;
  }

  get generation(): number {
    return this.#generation;
  }

  /** How long the members may take to join once a generation is prepared: the most patient one's time. */
  get patienceMs(): number {
    return Math.max(0, ...[...this.#members.values()].map(({ request }) => request.rebalanceTimeoutMs));
  }

  /** The topics of all members. */
  get topics(): readonly string[] {
    return [...new Set([...this.#members.values()].flatMap(({ request }) => request.topics))].sort();
  }

  /** A new member without `memberId`. Undefined: the member is unknown and must join as a new one. */
  join(request: JoinRequest, memberId?: string): string | undefined {
    if (memberId !== undefined && !this.#members.has(memberId)) return undefined;
    const kept = memberId === undefined ? this.#takeInstance(request) : undefined;
    if (kept !== undefined) return kept;
    const id = memberId ?? this.#newId();
    this.#members.set(id, { request, joined: true, part: NOTHING });
    this.#preparing = true;
    return id;
  }

  /** Makes the generation when everybody has joined; `count` tells how many partitions the topics have. */
  settle(count: (topics: readonly string[]) => number): boolean {
    if (!this.#preparing || this.waitsFor().length > 0 || this.#members.size === 0) return false;
    const claiming = [...this.#members].map(([memberId, { request }]) => ({ memberId, owned: request.owned }));
    const plan = handOver(count(this.topics), claiming);
    for (const [id, member] of this.#members) {
      member.part = plan.get(id)!;
      member.joined = false;
    }
    this.#generation++;
    this.#preparing = false;
    return true;
  }

  /** Members the coming generation waits for. */
  waitsFor(): readonly string[] {
    return [...this.#members].filter(([, { joined }]) => !joined).map(([id]) => id);
  }

  /** A member left, or its time is over. False: it was gone already. */
  remove(memberId: string): boolean {
    if (!this.#members.delete(memberId)) return false;
    this.#preparing = this.#members.size > 0;
    if (!this.#preparing) this.#generation++;
    return true;
  }

  standing(memberId: string): Standing {
    if (this.#fenced.has(memberId)) return 'fenced';
    if (!this.#members.has(memberId)) return 'unknown';
    return this.#preparing ? 'join-again' : 'current';
  }

  /** What the member was given in the generation it joined last; undefined while that is being made. */
  given(memberId: string): { readonly generation: number; readonly part: HandOver } | undefined {
    const member = this.#members.get(memberId);
    if (member === undefined || member.joined) return undefined;
    return { generation: this.#generation, part: member.part };
  }

  /** Offsets are taken from a member of this generation, also while the next one is prepared. */
  accepts({ memberId, generation }: Membership): boolean {
    // A tool without membership sets offsets, as Kafka lets it.
    if (memberId === '' && generation === -1) return true;
    return this.#members.has(memberId) && generation === this.#generation;
  }

  /** A static member that comes back takes the place of its former self, which is fenced from now on: no rebalance. */
  #takeInstance(request: JoinRequest): string | undefined {
    if (request.instanceId === undefined) return undefined;
    const former = [...this.#members].find(([, member]) => member.request.instanceId === request.instanceId);
    if (former === undefined) return undefined;
    const [formerId, member] = former;
    const id = this.#newId();
    this.#members.delete(formerId);
    this.#fenced.add(formerId);
    this.#members.set(id, { ...member, request, joined: member.joined || this.#preparing });
    return id;
  }

  #newId(): string {
    return `${this.groupId}-member-${++this.#ids}`;
  }
}
