import type { DueTimer } from './processor.js';

/** Timers by id, ordered by time, then id. Setting an id again moves it; entries that were moved or cancelled stay in the heap until they come up. */
export class TimerQueue {
  readonly #atMs = new Map<string, number>();
  readonly #heap: DueTimer[] = [];

  set(id: string, atMs: number): void {
    if (this.#atMs.get(id) === atMs) return;
    this.#atMs.set(id, atMs);
    this.#push({ id, atMs });
  }

  cancel(id: string): void {
    this.#atMs.delete(id);
  }

  clear(): void {
    this.#atMs.clear();
    this.#heap.length = 0;
  }

  /** The earliest timer's time, if there is one. */
  nextAt(): number | undefined {
    for (let top = this.#heap[0]; top !== undefined; top = this.#heap[0]) {
      if (this.#atMs.get(top.id) === top.atMs) return top.atMs;
      this.#pop();
    }
    return undefined;
  }

  /** The timers due at `now`, earliest first. They stay: only a commit removes them. */
  due(now: number): DueTimer[] {
    const due = new Map<string, DueTimer>();
    while ((this.nextAt() ?? Infinity) <= now) {
      const timer = this.#pop();
      // Moved away and back, it is in the heap twice.
      due.set(timer.id, timer);
    }
    for (const timer of due.values()) this.#push(timer);
    return [...due.values()];
  }

  #push(timer: DueTimer): void {
    const heap = this.#heap;
    let at = heap.push(timer) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = timer;
  }

  #pop(): DueTimer {
    const heap = this.#heap;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

function isBefore(a: DueTimer, b: DueTimer): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.id < b.id);
}
