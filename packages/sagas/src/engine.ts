import {
  ApplyRunner,
  ProcessRunner,
  compacted,
  keptForEver,
  modelOf,
  processorTopics,
  type Engine,
  type EnginePart,
  type Features,
  type MessageClass,
  type PlannedTopic,
  type ProcessOptions,
  type ProcessorsOptions,
} from '@headwater/core';
import { applyParticipant, type BoundHandler } from './apply-participant.js';
import { compileSaga, repliesTopicOf, sagaMistakes, statusTopicOf, type CompiledSaga } from './compile.js';
import { INBOX_DDL } from './inbox.js';
import { commandHandlersOf } from './participant.js';
import { sagaOf, type SagaOptions } from './saga.js';
import { sagaProcessor } from './saga-processor.js';
import { SAGAS_DDL, applySagaStatus } from './saga-status.js';

/** How sagas run; `standby: 'all'` has each instance also keep the instances of sagas that others own, to take them over at once. */
export type SagasOptions = ProcessorsOptions & Pick<ProcessOptions, 'standby'>;

/** Runs every `@Saga` and every `@CommandHandler` of the application (role `processors`) and keeps `headwater.sagas` (role `projections`). */
export function sagas(options: SagasOptions = {}): Engine {
  return {
    name: 'sagas',
    plan(features) {
      const found = features.classes.flatMap((type) => {
        const saga = sagaOf(type);
        return saga === undefined ? [] : [{ type, saga }];
      });
      const participants = handlersByTopic(features);
      return {
        mistakes: mistakesOf(found, features),
        topics: found.flatMap(({ saga }) => sagaTopics(saga.name)),
        ddl: [INBOX_DDL, ...SAGAS_DDL],
        parts: [
          ...[...participants].map(([topic, handlers]) => participantPart(topic, handlers)),
          ...found.flatMap(({ type, saga }) => {
            const instance = features.instanceOf(type);
            return instance === undefined ? [] : sagaParts(compileSaga(type, saga), instance, options);
          }),
        ],
      };
    },
  };
}

function sagaTopics(name: string): PlannedTopic[] {
  return [...processorTopics(`saga.${name}`), compacted(statusTopicOf(name)), keptForEver(repliesTopicOf(name))];
}

function sagaParts(saga: CompiledSaga, instance: object, options: SagasOptions): EnginePart[] {
  return [
    {
      role: 'processors',
      start: async (context) => [new ProcessRunner(sagaProcessor(saga, instance), { ...context, ...options })],
    },
    { role: 'projections', start: async (context) => [new ApplyRunner(applySagaStatus(saga.name), context)] },
  ];
}

function participantPart(topic: string, handlers: readonly BoundHandler[]): EnginePart {
  return {
    role: 'processors',
    start: async (context) => [new ApplyRunner(applyParticipant(topic, handlers), context)],
  };
}

function handlersByTopic(features: Features): Map<string, BoundHandler[]> {
  const byTopic = new Map<string, BoundHandler[]>();
  for (const type of features.classes) {
    const instance = features.instanceOf(type);
    for (const { command, method } of commandHandlersOf(type)) {
      const topic = modelOf(command)?.topic;
      if (instance === undefined || topic === undefined) continue;
      const handle = (instance as Record<string, BoundHandler['handle']>)[method]!.bind(instance);
      byTopic.set(topic, [...(byTopic.get(topic) ?? []), { command, handle }]);
    }
  }
  return byTopic;
}

function mistakesOf(found: readonly { type: MessageClass; saga: SagaOptions }[], features: Features): string[] {
  const mistakes: string[] = [];
  const handledBy = new Map<MessageClass, string>();
  for (const type of features.classes) {
    for (const { command, method } of commandHandlersOf(type)) {
      const here = `${type.name}.${method}`;
      const other = handledBy.get(command);
      if (other !== undefined) mistakes.push(`${here} and ${other} both handle ${command.name}. Keep one.`);
      handledBy.set(command, here);
      if (modelOf(command)?.kind !== 'command')
        mistakes.push(`${here} handles ${command.name}, which is not a @Command. Decorate it.`);
      else if (!features.classes.includes(command))
        mistakes.push(`${here} handles ${command.name}, whose topic is unknown. Add it to a forFeature([...]).`);
    }
  }
  const names = new Map<string, string>();
  for (const { type, saga } of found) {
    const other = names.get(saga.name);
    if (other !== undefined)
      mistakes.push(`Sagas ${other} and ${type.name} are both named "${saga.name}". Give one another name.`);
    names.set(saga.name, type.name);
    mistakes.push(...sagaMistakes(type, saga, features, new Set(handledBy.keys())));
  }
  return mistakes;
}
