export { sagas } from './engine.js';
export type { SagasOptions } from './engine.js';
export { decide, isOpen, start } from './decide.js';
export type {
  Decision,
  Reply,
  SagaEffect,
  SagaEvent,
  SagaState,
  SagaStatus,
  SagaSteps,
  StepState,
  StepStatus,
} from './decide.js';
export { CommandHandler } from './participant.js';
export type { SqlContext } from './participant.js';
export { Pivot, Retriable, Saga, Step, Undo } from './saga.js';
export type { SagaOptions, StepContext, StepKind } from './saga.js';
export type { SagaRow } from './saga-status.js';
