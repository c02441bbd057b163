import { compacted, keptForEver, type Engine, type Features, type PlannedTopic } from '../module/engine.js';
import { modelOf, type MessageClass } from '../model/model.js';
import { handlersOf } from '../model/on.js';
import { ProcessRunner, type ProcessOptions } from '../process/process-runner.js';
import { controlTopicOf, parkedTopicOf, stateTopicOf } from '../process/processor.js';
import { declaredProcessor } from './declared-processor.js';
import { processorOf, timerMethodsOf, type ProcessorOptions } from './processor.js';

/** How processors run; the same for all of an application. */
export type ProcessorsOptions = Omit<ProcessOptions, 'log' | 'logger' | 'clock' | 'instanceId' | 'standby'>;

/** The topics of a processor besides its inputs and outputs. */
export function processorTopics(name: string): PlannedTopic[] {
  return [compacted(stateTopicOf(name)), keptForEver(parkedTopicOf(name)), keptForEver(controlTopicOf(name))];
}

/** Runs every `@Processor` of the application. Role `processors`. */
export function processors(options: ProcessorsOptions = {}): Engine {
  return {
    name: 'processors',
    plan(features) {
      const found = features.classes.flatMap((type) => {
        const processor = processorOf(type);
        return processor === undefined ? [] : [{ type, processor }];
      });
      return {
        mistakes: [
          ...duplicates(found),
          ...found.flatMap(({ type, processor }) => mistakesOf(type, processor, features)),
        ],
        topics: found.flatMap(({ processor }) => processorTopics(processor.name)),
        ddl: [],
        parts: found.map(({ type, processor }) => ({
          role: 'processors',
          start: async (context) => {
            const definition = declaredProcessor(type, features.instanceOf(type)!, processor, features.classes);
            return [new ProcessRunner(definition, { ...context, ...options, standby: processor.standby ?? 'none' })];
          },
        })),
      };
    },
  };
}

function duplicates(found: readonly { type: MessageClass; processor: ProcessorOptions }[]): string[] {
  const names = new Map<string, string>();
  return found.flatMap(({ type, processor: { name } }) => {
    const other = names.get(name);
    names.set(name, type.name);
    return other === undefined
      ? []
      : [`Processors ${other} and ${type.name} are both named "${name}". Give one another name.`];
  });
}

function mistakesOf(type: MessageClass, { name, tables = [] }: ProcessorOptions, features: Features): string[] {
  const mistakes: string[] = [];
  const say = (text: string) => mistakes.push(`Processor ${type.name}${text}`);
  const on = handlersOf(type);
  if (!/^[a-z][a-z0-9-]{0,48}$/.test(name)) say(`: name "${name}" must be lower-case letters, digits and dashes.`);
  if (on.length === 0) say(' has no @On(…) method. Add one, or remove the class.');
  const timers = timerMethodsOf(type);
  if (timers.length > 1) say(`: ${timers.join(' and ')} both have @OnTimer(). Keep one; the id tells timers apart.`);
  for (const [n, { type: message, method }] of on.entries()) {
    const first = on.findIndex((other) => other.type === message);
    if (first < n) say(`: ${on[first]!.method} and ${method} both handle ${message.name}. Keep one.`);
    if (modelOf(message) === undefined)
      say(`.${method}: ${message.name} has no @Changelog, @Event or @Command, so its topic is unknown. Decorate it.`);
    else if (!features.classes.includes(message))
      say(`.${method}: the topic of ${message.name} is unknown. Add it to a forFeature([...]).`);
  }
  for (const table of tables) {
    if (modelOf(table)?.kind !== 'changelog') say(`: its table ${table.name} is not a @Changelog. Decorate it.`);
    else if (!features.classes.includes(table))
      say(`: the topic of its table ${table.name} is unknown. Add it to a forFeature([...]).`);
  }
  if (features.instanceOf(type) === undefined) say(' is not a provider. Pass it to HeadwaterModule.forFeature([...]).');
  return mistakes;
}
