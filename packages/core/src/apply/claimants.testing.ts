import type { LogGroup, TopicPartition } from '../log/log.js';

/** Opens when `count` have come; who comes later passes. */
export function meeting(count: number): () => Promise<void> {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  let come = 0;
  return () => {
    if (++come === count) open();
    return opened;
  };
}

/** A group whose every member believes that the partition is its own. */
export function everybodysOwn(partition: TopicPartition): Pick<LogGroup, 'run' | 'stop'> {
  const stopping = new AbortController();
  const { signal } = stopping;
  const membership = { groupId: 'claimants', memberId: 'owner', generation: 1 };
  let running = Promise.resolve();
  const runOn: LogGroup['run'] = async (work, onError) => {
    while (!signal.aborted)
      await work({ membership, partitions: [partition], signal }).catch((error: unknown) => onError?.(error));
  };
  return {
    run: (work, onError) => (running = runOn(work, onError)),
    stop() {
      stopping.abort();
      return running;
    },
  };
}
