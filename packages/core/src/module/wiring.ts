import { WiringError } from '../errors/headwater.error.js';
import type { TopicSpec } from '../log/log.js';
import { keyProperties, modelOf } from '../model/model.js';
import { compacted, keptForEver, type Engine, type EnginePlan, type Features, type PlannedTopic } from './engine.js';

/** The whole application as decided, not yet started. */
export interface Wiring {
  readonly plans: readonly EnginePlan[];
  readonly topics: readonly TopicSpec[];
  readonly ddl: readonly string[];
}

/** Asks every engine for its plan and checks the models. Throws one WiringError with every mistake and its remedy. */
export function wire(engines: readonly Engine[], features: Features, partitions: number): Wiring {
  const plans = engines.map((engine) => engine.plan(features));
  const topics = mergeTopics([...modelTopics(features), ...plans.flatMap((plan) => plan.topics)], partitions);
  const mistakes = [...modelMistakes(features), ...plans.flatMap((plan) => plan.mistakes), ...topics.mistakes];
  if (mistakes.length > 0) throw new WiringError(mistakes);
  return { plans, topics: topics.specs, ddl: plans.flatMap((plan) => plan.ddl) };
}

function modelTopics(features: Features): PlannedTopic[] {
  return features.classes.flatMap((type) => {
    const model = modelOf(type);
    if (model === undefined) return [];
    return [model.kind === 'changelog' ? compacted(model.topic) : keptForEver(model.topic)];
  });
}

function modelMistakes(features: Features): string[] {
  const mistakes: string[] = [];
  const types = new Map<string, string>();
  for (const type of features.classes) {
    const model = modelOf(type);
    if (model === undefined) continue;
    if (keyProperties(type).length === 0)
      mistakes.push(`${type.name} has no key. Decorate the property that identifies it with @Key().`);
    const id = `${model.topic} ${model.type}`;
    const other = types.get(id);
    if (other !== undefined && other !== type.name) {
      mistakes.push(
        `${type.name} and ${other} are both "${model.type}" on topic ${model.topic}. Give one of them another type.`,
      );
    }
    types.set(id, type.name);
  }
  return mistakes;
}

function mergeTopics(planned: readonly PlannedTopic[], partitions: number): { specs: TopicSpec[]; mistakes: string[] } {
  const specs = new Map<string, TopicSpec>();
  const mistakes: string[] = [];
  for (const topic of planned) {
    const spec = { partitions, ...topic };
    const known = specs.get(topic.topic);
    if (known !== undefined && (known.cleanupPolicy !== spec.cleanupPolicy || known.partitions !== spec.partitions)) {
      mistakes.push(
        `Topic ${topic.topic} is wanted both as ${describe(known)} and as ${describe(spec)}. State and events need topics of their own.`,
      );
    }
    specs.set(topic.topic, known ?? spec);
  }
  return { specs: [...specs.values()], mistakes };
}

const describe = (spec: TopicSpec): string => `${spec.cleanupPolicy} with ${spec.partitions} partitions`;
