import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '@headwater/testing';

const STAND_STILL_MS = 60_000;
const LIMIT = { timeoutMs: 120_000, intervalMs: 250 };

/** Throws unless the output is exactly what one pass over the input gives, in order per key, the state agrees, and nothing is left open. */
export async function check({ log, input, output, group, records, keys, topics, name }) {
  const read = await readAll(log, input);
  if (read.length !== records) throw new Error(`the input holds ${read.length} of ${records} records`);
  const ends = new Map();
  for (const { partition, offset } of read) ends.set(partition, Math.max(ends.get(partition) ?? 0, offset + 1));
  await handled(log, group, input, ends);
  await eventually(async () => {
    for (const topic of topics)
      for (const { partition, lastStable, high } of await log.admin.offsets(topic))
        if (lastStable !== high)
          throw new Error(`a transaction is open on ${topic}/${partition}: ${lastStable} of ${high}`);
  }, LIMIT);
  same(byKey(await readAll(log, output)), expectedOf(byKey(read)));
  const [, , parked, state] = topics;
  const aside = await readAll(log, parked);
  if (aside.length > 0) throw new Error(`${aside.length} records were parked, the first: ${aside[0].value}`);
  const counts = new Map();
  for (const { key, value } of await readAll(log, state))
    if (String(key).startsWith('s:')) counts.set(String(key).slice(2), String(value));
  for (const [key, values] of byKey(read))
    if (counts.get(key) !== String(values.length))
      throw new Error(`the state of ${key} is ${counts.get(key)}, not ${values.length}`);
  if (counts.size > keys) throw new Error(`${name} has ${counts.size} states for ${keys} keys`);
}

/** Resolves when the group has committed the ends; rejects when nothing moves for long: slow machines take their time. */
async function handled(log, group, input, ends) {
  const partitions = [...ends.keys()].map((partition) => ({ topic: input, partition }));
  let [last, since] = ['', performance.now()];
  for (;;) {
    const committed = await log.admin.committedOffsets(group, partitions);
    const behind = committed.filter(({ partition, next }) => next < ends.get(partition));
    if (behind.length === 0) return;
    const now = behind.map(({ partition, next }) => `${partition}: ${next} of ${ends.get(partition)}`).join(', ');
    if (now !== last) [last, since] = [now, performance.now()];
    if (performance.now() - since > STAND_STILL_MS)
      throw new Error(`the input is not handled, it stands still at ${now}`);
    await delay(250);
  }
}

function expectedOf(input) {
  return new Map([...input].map(([key, values]) => [key, values.map((value, at) => `${value} ${at + 1}`)]));
}

function byKey(records) {
  const found = new Map();
  for (const { key, value } of records) {
    const values = found.get(String(key)) ?? [];
    values.push(String(value));
    found.set(String(key), values);
  }
  return found;
}

function same(found, wanted) {
  for (const [key, values] of wanted) {
    const seen = found.get(key) ?? [];
    const at = values.findIndex((value, index) => seen[index] !== value);
    if (at >= 0)
      throw new Error(
        `${key}: output ${at} is "${seen[at]}", not "${values[at]}" (${seen.length} of ${values.length})`,
      );
    if (seen.length > values.length) throw new Error(`${key}: ${seen.length - values.length} outputs too many`);
  }
}

/** Everything committed in a topic, per partition in its order. */
async function readAll(log, topic) {
  const reader = log.reader();
  try {
    const open = new Map();
    for (const { partition, start, lastStable } of await log.admin.offsets(topic)) {
      if (lastStable <= start) continue;
      open.set(partition, lastStable);
      reader.seek(topic, partition, start);
    }
    const records = [];
    while (open.size > 0) {
      for (const batch of await reader.poll({ maxWaitMs: 100 })) {
        records.push(...batch.records);
        if (batch.nextOffset >= (open.get(batch.partition) ?? 0)) open.delete(batch.partition);
      }
    }
    return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
  } finally {
    await reader.close();
  }
}
