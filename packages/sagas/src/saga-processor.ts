import {
  ContractError,
  decodeMessage,
  encodeMessage,
  envelopeFields,
  headerText,
  modelOf,
  textHeaders,
  type LogRecord,
  type OutRecord,
  type ProcessContext,
  type ProcessorDefinition,
} from '@headwater/core';
import { repliesTopicOf, statusTopicOf, type CompiledSaga } from './compile.js';
import { decide, start, type Decision, type Reply, type SagaEvent, type SagaState } from './decide.js';
import type { StepContext } from './saga.js';

/** What the state topic keeps per instance: the state, and the start event as it came. */
interface Instance {
  readonly saga: string;
  readonly version: number;
  readonly state: SagaState;
  readonly startEvent: string;
}

/** A saga class and its instance as a processor: start events and replies in, commands and the status changelog out. */
export function sagaProcessor(saga: CompiledSaga, instance: object): ProcessorDefinition {
  const startTopic = modelOf(saga.startedBy)!.topic;
  const startType = modelOf(saga.startedBy)!.type;

  const onStart = (record: LogRecord, context: ProcessContext): void => {
    if (headerText(record.headers, 'ce_type') !== startType) return;
    if (record.key === null || record.value === null)
      throw new ContractError(startType, ['a start event needs a key and a value']);
    const id = record.key.toString('utf8');
    // G7: one instance per id, however often the start event comes.
    if (context.state.get(id) !== undefined) return;
    decodeMessage(saga.startedBy, record.value);
    settle(start(saga, id, context.now), record.value.toString('utf8'), context);
  };

  const onEvent = (id: string, event: SagaEvent, context: ProcessContext): void => {
    const stored = context.state.get(id);
    if (stored === undefined) return;
    const known = JSON.parse(stored.toString('utf8')) as Instance;
    const decision = decide(saga, known.state, event, context.now);
    if (decision !== undefined) settle(decision, known.startEvent, context);
  };

  /** State, commands, timer and status of one decision: one transaction by construction. */
  const settle = ({ state, effects }: Decision, startEvent: string, context: ProcessContext): void => {
    const kept: Instance = { saga: saga.name, version: saga.version, state, startEvent };
    const value = Buffer.from(JSON.stringify(kept));
    context.state.put(state.id, value);
    context.send({ topic: statusTopicOf(saga.name), key: Buffer.from(state.id), value });
    for (const effect of effects) {
      if (effect.type === 'set-deadline') context.timers.set(state.id, effect.atMs);
      else if (effect.type === 'cancel-deadline') context.timers.cancel(state.id);
      else context.send(command(effect.step, effect.direction, state, startEvent, context.now));
    }
  };

  const command = (
    step: string,
    direction: 'do' | 'undo',
    state: SagaState,
    startEvent: string,
    now: number,
  ): OutRecord => {
    const declared = direction === 'do' ? saga.does.get(step)! : saga.undoes.get(step)!;
    const make = (instance as Record<string, (start: object, context: StepContext) => object>)[declared.method]!;
    const results = Object.fromEntries(state.steps.map((one) => [one.name, one.result]));
    const encoded = encodeMessage(
      make.call(instance, decodeMessage(saga.startedBy, Buffer.from(startEvent)), { sagaId: state.id, results }),
    );
    // Deterministic, so that a repeat is recognised by the participant's inbox whatever happens here.
    const id = `${saga.name}:${state.id}:${step}`;
    return {
      topic: encoded.topic,
      key: Buffer.from(encoded.key),
      value: Buffer.from(encoded.value),
      headers: textHeaders({
        ...envelopeFields({
          id: `${id}:${direction}`,
          type: encoded.type,
          source: `saga/${saga.name}`,
          subject: encoded.key,
          time: new Date(now).toISOString(),
          correlation: state.id,
        }),
        hw_reply_to: repliesTopicOf(saga.name),
        hw_step: step,
        hw_direction: direction,
        hw_undoes: direction === 'undo' ? `${id}:do` : undefined,
      }),
    };
  };

  return {
    name: `saga.${saga.name}`,
    inputs: [startTopic, repliesTopicOf(saga.name)],
    onRecord: (record, context) => {
      if (record.topic === startTopic) onStart(record, context);
      else onEvent(record.key?.toString('utf8') ?? '', { type: 'replied', reply: decodeReply(record) }, context);
    },
    onTimer: (timer, context) => onEvent(timer.id, { type: 'deadline' }, context),
  };
}

function decodeReply(record: LogRecord): Reply {
  try {
    const reply = JSON.parse(record.value!.toString('utf8')) as Reply;
    if (
      typeof reply.step === 'string' &&
      ['do', 'undo'].includes(reply.direction) &&
      ['ok', 'rejected', 'failed', 'parked'].includes(reply.outcome)
    )
      return reply;
  } catch (cause) {
    throw new ContractError('Reply', ['value is not JSON'], cause);
  }
  throw new ContractError('Reply', ['step, direction or outcome is missing']);
}
