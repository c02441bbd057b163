import { modelOf, type Features, type MessageClass } from '@headwater/core';
import type { SagaSteps } from './decide.js';
import { declaredSteps, declaredUndos, type DeclaredStep, type DeclaredUndo, type SagaOptions } from './saga.js';

/** A saga class, ready to run. */
export interface CompiledSaga extends SagaSteps {
  readonly name: string;
  readonly version: number;
  readonly startedBy: MessageClass;
  readonly does: ReadonlyMap<string, DeclaredStep>;
  readonly undoes: ReadonlyMap<string, DeclaredUndo>;
}

export const repliesTopicOf = (saga: string): string => `headwater.saga.${saga}.replies`;
export const statusTopicOf = (saga: string): string => `headwater.saga.${saga}`;

export function compileSaga(type: MessageClass, options: SagaOptions): CompiledSaga {
  const steps = declaredSteps(type);
  const undoes = new Map(declaredUndos(type).map((undo) => [undo.of, undo]));
  const deadlineMs = options.deadline === undefined ? undefined : durationMs(options.deadline);
  return {
    name: options.name,
    version: options.version,
    startedBy: options.startedBy,
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    steps: steps.map((step) => ({ name: step.method, kind: step.kind, undoable: undoes.has(step.method) })),
    does: new Map(steps.map((step) => [step.method, step])),
    undoes,
  };
}

/** Every mistake of one saga class, each with its remedy. `handled`: the commands that have a participant. */
export function sagaMistakes(
  type: MessageClass,
  options: SagaOptions,
  features: Features,
  handled: ReadonlySet<MessageClass>,
): string[] {
  const steps = declaredSteps(type);
  const undos = declaredUndos(type);
  const mistakes: string[] = [];
  const say = (text: string) => mistakes.push(`Saga ${type.name}: ${text}`);
  if (!/^[a-z][a-z0-9-]{0,48}$/.test(options.name))
    say(`name "${options.name}" must be lower-case letters, digits and dashes.`);
  if (modelOf(options.startedBy)?.kind !== 'event')
    say(`${options.startedBy.name} is not an @Event. A saga is started by an event.`);
  else if (!features.classes.includes(options.startedBy))
    say(`its start event ${options.startedBy.name} is unknown. Add it to a forFeature([...]).`);
  if (options.deadline !== undefined && durationMs(options.deadline) === undefined)
    say(`deadline "${options.deadline}" is not a duration. Write 500ms, 30s, 5m, 2h or 1d.`);
  if (steps.length === 0) say('it has no steps. Add a method with @Step, @Pivot or @Retriable.');
  if (features.instanceOf(type) === undefined)
    say('it is not a provider. Pass it to HeadwaterModule.forFeature([...]).');
  const order: Record<DeclaredStep['kind'], number> = { compensable: 0, pivot: 1, retriable: 2 };
  steps.forEach((step, i) => {
    const before = steps[i - 1];
    if (before === undefined) return;
    if (order[step.kind] < order[before.kind])
      say(
        `${step.method} (${step.kind}) stands after ${before.method} (${before.kind}). Order: steps, one pivot, retriables.`,
      );
    if (step.kind === 'pivot' && before.kind === 'pivot')
      say(`${before.method} and ${step.method} are both pivots. Keep one.`);
  });
  for (const undo of undos) {
    const step = steps.find((one) => one.method === undo.of);
    if (step === undefined)
      say(`@Undo('${undo.of}') names no step. Steps are: ${steps.map((one) => one.method).join(', ')}.`);
    else if (step.kind !== 'compensable')
      say(`@Undo('${undo.of}') would take back a ${step.kind} step. Only steps before the pivot are undone.`);
  }
  for (const { method, command } of [...steps, ...undos]) {
    if (modelOf(command)?.kind !== 'command')
      say(`${method} sends ${command.name}, which is not a @Command. Decorate it.`);
    else if (!handled.has(command))
      say(
        `${method} sends ${command.name}, which nothing handles. Add a @CommandHandler(${command.name}) to a participant.`,
      );
  }
  return mistakes;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export function durationMs(text: string): number | undefined {
  const parts = /^(\d+)(ms|s|m|h|d)$/.exec(text);
  return parts === null ? undefined : Number(parts[1]) * UNITS[parts[2]!]!;
}
