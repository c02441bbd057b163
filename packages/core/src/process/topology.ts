import { HeadwaterError } from '../errors/headwater.error.js';
import { controlTopicOf, stateTopicOf, type ProcessorDefinition } from './processor.js';

/** What a state was made from. Kept in it from its first transaction on, and compared whenever it is opened. */
export interface Topology {
  /** Of this very record: a later release may write more. */
  readonly format: number;
  readonly processor: string;
  readonly version: number;
  readonly partitions: number;
  /** The id of the state topic. */
  readonly state: string;
  /** The id of each input: it changes when the topic is deleted and made again. */
  readonly inputs: Readonly<Record<string, string>>;
}

export const TOPOLOGY_ENTRY = 'v:topology';
const FORMAT = 1;

/** What the cluster has of a processor's topics. */
export interface FoundTopics {
  readonly counts: ReadonlyMap<string, number>;
  readonly ids: ReadonlyMap<string, string>;
}

/** The topics the tasks read: the inputs, and what operators ask. */
export function inputsOf({ name, inputs }: ProcessorDefinition): readonly string[] {
  return [...inputs, controlTopicOf(name)];
}

/** Every topic a task cannot work without. */
export function neededTopics(definition: ProcessorDefinition): readonly string[] {
  return [...inputsOf(definition), stateTopicOf(definition.name), ...(definition.outputs ?? [])];
}

/** Throws when a topic is missing, or when an input does not have as many partitions as the state. */
export function topologyOf(definition: ProcessorDefinition, { counts, ids }: FoundTopics): Topology {
  const { name: processor, version = 1 } = definition;
  const missing = neededTopics(definition).filter((topic) => !counts.has(topic) || !ids.has(topic));
  if (missing.length > 0) throw topicMissing(processor, missing);
  const partitions = counts.get(stateTopicOf(processor))!;
  for (const topic of inputsOf(definition)) {
    const count = counts.get(topic)!;
    if (count !== partitions) throw partitionsChanged(processor, topic, partitions, count);
  }
  const inputs = Object.fromEntries(inputsOf(definition).map((topic) => [topic, ids.get(topic)!]));
  return { format: FORMAT, processor, version, partitions, state: ids.get(stateTopicOf(processor))!, inputs };
}

export function expectEqualCounts(
  processor: string,
  inputs: readonly string[],
  counts: ReadonlyMap<string, number>,
): void {
  if (new Set(inputs.map((topic) => counts.get(topic))).size <= 1) return;
  const listed = inputs.map((topic) => `${topic} has ${counts.get(topic)}`).join(', ');
  throw new HeadwaterError(
    'PROCESS_NOT_COPARTITIONED',
    `the inputs of ${processor} have different partition counts: ${listed}. Records of one key would reach different tasks. ` +
      'Copy one of them into a new topic with the other’s count, and read that.',
    { facts: { processor, counts: Object.fromEntries(inputs.map((topic) => [topic, counts.get(topic)])) } },
  );
}

/** Throws when what was found is no longer what the work began with. */
export function expectUnchanged(began: Topology, definition: ProcessorDefinition, found: FoundTopics): void {
  const now = topologyOf(definition, found);
  if (now.partitions !== began.partitions)
    throw partitionsChanged(began.processor, stateTopicOf(began.processor), began.partitions, now.partitions);
  if (now.state !== began.state) throw stateRemade(began.processor, 'was deleted and made again');
  const remade = remadeInputs(began, now);
  if (remade.length > 0) {
    throw new HeadwaterError(
      'PROCESS_INPUT_REMADE',
      `${remade.join(', ')} was deleted and made again. The processor goes on at the start of the new topic.`,
      { retryable: true, facts: { processor: began.processor, topics: remade } },
    );
  }
}

/**
 * Throws when a state cannot be continued by a definition. `known`: what the state says of itself; undefined: it is new, or lost what was written first
 * (`includesOffsets`).
 */
export function expectContinuable(known: Topology | undefined, now: Topology, includesOffsets: boolean): void {
  if (known === undefined && includesOffsets) throw stateRemade(now.processor, 'lacks its beginning');
  if (known === undefined) return;
  const refuse = (what: string, remedy: string) => {
    const facts = { processor: now.processor, known, declared: now };
    throw new HeadwaterError('PROCESS_STATE_FOREIGN', `the state of ${now.processor} ${what}. ${remedy}`, { facts });
  };
  if (known.format > FORMAT) refuse(`is of a later release (format ${known.format})`, 'Start that release again.');
  if (known.processor !== now.processor)
    refuse(
      `was written by processor ${known.processor}`,
      'Give the processor its name back, or a state topic of its own.',
    );
  if (known.partitions !== now.partitions)
    throw partitionsChanged(now.processor, stateTopicOf(now.processor), known.partitions, now.partitions);
  if (known.version > now.version)
    refuse(`is of version ${known.version}, declared is ${now.version}`, 'Start the newer version of the application.');
  const gone = Object.keys(known.inputs).filter((topic) => !(topic in now.inputs));
  if (gone.length > 0 && known.version === now.version)
    refuse(
      `was made from ${gone.join(', ')}, which is no longer an input`,
      `Declare the input again; or, when it was meant to go or has another name now, set version: ${now.version + 1} on the definition.`,
    );
}

/** Inputs that are other topics than the state was made from, although their names are the same. */
export function remadeInputs(known: Topology | undefined, now: Topology): string[] {
  return Object.keys(now.inputs).filter((topic) => (known?.inputs[topic] ?? now.inputs[topic]) !== now.inputs[topic]);
}

export const encodeTopology = (topology: Topology): Buffer => Buffer.from(JSON.stringify(topology));

export function decodeTopology(value: Buffer | undefined): Topology | undefined {
  return value === undefined ? undefined : (JSON.parse(value.toString('utf8')) as Topology);
}

function stateRemade(processor: string, what: string): HeadwaterError {
  const topic = stateTopicOf(processor);
  return new HeadwaterError(
    'PROCESS_STATE_REMADE',
    `the state topic ${topic} ${what}: state that was in it is gone. Stop all instances; bring the topic back, or have the processor begin anew: ` +
      `make the topic again, delete the group headwater.${processor}, and start.`,
    { facts: { processor, topic } },
  );
}

export function topicMissing(processor: string, missing: readonly string[]): HeadwaterError {
  const remedy = missing.includes(stateTopicOf(processor))
    ? `Make it, compacted, with the partitions of the inputs. If it was there before, its state is gone with it: bring it back; or delete the group headwater.${processor} too, to begin anew.`
    : 'Make it again; the processor then goes on by itself.';
  return new HeadwaterError(
    'PROCESS_TOPIC_MISSING',
    `processor ${processor} needs ${missing.join(', ')}, which does not exist. ${remedy}`,
    { retryable: true, facts: { processor, topics: missing } },
  );
}

export function partitionsChanged(processor: string, topic: string, before: number, now: number): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_PARTITIONS_CHANGED',
    `${topic} has ${now} partitions, the state of ${processor} was made with ${before}: records of one key now lie on another partition than their state. ` +
      `Copy the input into a new topic with ${before} partitions, keyed as before, and read that; or run a processor of a new name with ${now} partitions from the start.`,
    { facts: { processor, topic, before, now } },
  );
}
