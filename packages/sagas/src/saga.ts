import 'reflect-metadata';
import type { MessageClass } from '@headwater/core';

export interface SagaOptions {
  readonly name: string;
  /** The event that starts one instance; its key is the saga's id. */
  readonly startedBy: MessageClass;
  /** Counted from the start. When it passes before the pivot is sent, the saga compensates. `500ms`, `30s`, `5m`, `2h`, `1d`. */
  readonly deadline?: string;
  readonly version: number;
}

/**
 * Compensable steps come first and are undone in reverse when a later one is rejected; one pivot decides; retriable steps follow and are
 * never undone.
 */
export type StepKind = 'compensable' | 'pivot' | 'retriable';

/** A step as declared on a class: which command it sends, and which method makes it. */
export interface DeclaredStep {
  readonly method: string;
  readonly kind: StepKind;
  readonly command: MessageClass;
}

export interface DeclaredUndo {
  readonly of: string;
  readonly method: string;
  readonly command: MessageClass;
}

/** What a step's method gets besides the start event. */
export interface StepContext {
  readonly sagaId: string;
  /** What the participants answered, by step name. */
  readonly results: Readonly<Record<string, unknown>>;
}

const SAGA = Symbol('headwater:saga');
const STEPS = Symbol('headwater:steps');
const UNDOS = Symbol('headwater:undos');

/** An orchestrator of steps over participants. A step's method is pure: `(start, context) => command`. Steps run in the order they are written. */
export function Saga(options: SagaOptions): ClassDecorator {
  return (target) => Reflect.defineMetadata(SAGA, options, target);
}

export const Step = (command: MessageClass): MethodDecorator => declareStep('compensable', command);
export const Pivot = (command: MessageClass): MethodDecorator => declareStep('pivot', command);
export const Retriable = (command: MessageClass): MethodDecorator => declareStep('retriable', command);

/** Makes the command that takes the named step back. It may arrive although the step never happened; the participant then does nothing. */
export function Undo(of: string, command: MessageClass): MethodDecorator {
  return (target, method) => append(UNDOS, target, { of, method: String(method), command } satisfies DeclaredUndo);
}

export function sagaOf(type: MessageClass): SagaOptions | undefined {
  return Reflect.getOwnMetadata(SAGA, type) as SagaOptions | undefined;
}

export function declaredSteps(type: MessageClass): readonly DeclaredStep[] {
  return (Reflect.getMetadata(STEPS, type.prototype as object) as readonly DeclaredStep[] | undefined) ?? [];
}

export function declaredUndos(type: MessageClass): readonly DeclaredUndo[] {
  return (Reflect.getMetadata(UNDOS, type.prototype as object) as readonly DeclaredUndo[] | undefined) ?? [];
}

function declareStep(kind: StepKind, command: MessageClass): MethodDecorator {
  return (target, method) => append(STEPS, target, { method: String(method), kind, command } satisfies DeclaredStep);
}

function append(symbol: symbol, target: object, value: unknown): void {
  const known = (Reflect.getMetadata(symbol, target) as readonly unknown[] | undefined) ?? [];
  Reflect.defineMetadata(symbol, [...known, value], target);
}
