import { randomUUID } from 'node:crypto';
import { ContractError, HeadwaterError, errorMessage } from '../errors/headwater.error.js';
import { headerText } from '../log/headers.js';
import type { LogRecord } from '../log/log.js';
import { decodeMessage, encodeMessage } from '../model/codec.js';
import { envelopeHeaders } from '../model/envelope.js';
import { modelOf, type MessageClass } from '../model/model.js';
import { changeOf, handlerFor, handlersOf, topicsOf, type Change } from '../model/on.js';
import type { DueTimer, ProcessContext, ProcessorDefinition } from '../process/processor.js';
import { timerMethodsOf, type ProcessorOptions, type Sent, type TaskContext } from './processor.js';

/** What a method is called for, as its messages name it. */
interface Cause {
  readonly correlation: string | undefined;
  readonly causation: string | undefined;
}

type Method = (subject: Change<object> | DueTimer, context: TaskContext) => Sent | Promise<Sent>;

/** A processor class and its instance as a definition. `known`: the classes whose topics exist. */
export function declaredProcessor(
  type: MessageClass,
  instance: object,
  options: ProcessorOptions,
  known: readonly MessageClass[],
): ProcessorDefinition {
  const { name, version, tables = [], onFailure, onLostInput } = options;
  const handlers = handlersOf(type);
  const [timerMethod] = timerMethodsOf(type);
  const declared = { name, known, hasTimers: timerMethod !== undefined };
  const call = (method: string, subject: Change<object> | DueTimer, cause: Cause, context: ProcessContext) => {
    const task = new DeclaredTask(declared, cause, context);
    const sent = (instance as Record<string, Method>)[method]!(subject, task);
    return isPromise(sent) ? sent.then((late) => task.sendAll(late)) : task.sendAll(sent);
  };
  return {
    name,
    version,
    inputs: topicsOf(type),
    tables: tables.map((table) => modelOf(table)!.topic),
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(onLostInput === undefined ? {} : { onLostInput }),
    onRecord(record, context) {
      const on = handlerFor(handlers, record);
      if (on !== undefined) return call(on.method, changeOf(on.type, record), causeOf(record), context);
    },
    onTimer(timer, context) {
      if (timerMethod !== undefined) return call(timerMethod, timer, NO_CAUSE, context);
    },
  };
}

const NO_CAUSE: Cause = { correlation: undefined, causation: undefined };

function causeOf({ headers }: LogRecord): Cause {
  return {
    correlation: headerText(headers, 'hw_correlation'),
    causation: headerText(headers, 'ce_id'),
  };
}

interface Declared {
  readonly name: string;
  readonly known: readonly MessageClass[];
  readonly hasTimers: boolean;
}

class DeclaredTask implements TaskContext {
  readonly #declared: Declared;
  readonly #cause: Cause;
  readonly #context: ProcessContext;

  constructor(declared: Declared, cause: Cause, context: ProcessContext) {
    this.#declared = declared;
    this.#cause = cause;
    this.#context = context;
  }

  get now(): number {
    return this.#context.now;
  }

  get timers(): TaskContext['timers'] {
    const { timers } = this.#context;
    const { name, hasTimers } = this.#declared;
    return {
      set: (id, atMs) => {
        if (!hasTimers) throw timerUnheard(name, id);
        timers.set(id, atMs);
      },
      cancel: (id) => timers.cancel(id),
    };
  }

  get state(): TaskContext['state'] {
    return this;
  }

  readonly get = <T>(key: string): T | undefined => {
    const value = this.#context.state.get(key);
    return value === undefined ? undefined : (JSON.parse(value.toString('utf8')) as T);
  };

  readonly put = (key: string, value: unknown): void => {
    this.#context.state.put(key, encodedState(this.#declared.name, key, value));
  };

  readonly delete = (key: string): void => {
    this.#context.state.delete(key);
  };

  readonly send = (message: object): void => {
    const { topic, type, key, value } = encodeMessage(message);
    this.#expectKnown(message.constructor as MessageClass);
    const { correlation, causation } = this.#cause;
    const headers = envelopeHeaders({
      // Nobody sees a message of an attempt that was not committed: it need not be the same again.
      id: randomUUID(),
      type,
      source: `processor/${this.#declared.name}`,
      subject: key,
      time: new Date(this.#context.now).toISOString(),
      correlation,
      causation,
    });
    this.#context.send({ topic, key: Buffer.from(key), value: Buffer.from(value), headers });
  };

  sendAll(sent: Sent): void {
    const messages = Array.isArray(sent)
      ? (sent as readonly (object | null | undefined)[])
      : [sent as object | undefined];
    for (const message of messages) if (message !== undefined && message !== null) this.send(message);
  }

  readonly tombstone = (type: MessageClass, key: string): void => {
    const model = modelOf(type);
    if (model?.kind !== 'changelog')
      throw new ContractError(type.name, ['only a class with @Changelog has tombstones']);
    this.#expectKnown(type);
    this.#context.send({ topic: model.topic, key: Buffer.from(key), value: null });
  };

  readonly table = <T extends object>(type: MessageClass<T>): { get(key: string): T | undefined } => {
    const table = this.#context.table(modelOf(type)?.topic ?? type.name);
    return {
      get(key) {
        const value = table.get(key);
        return value === undefined ? undefined : decodeMessage(type, value);
      },
    };
  };

  #expectKnown(type: MessageClass): void {
    const { name, known } = this.#declared;
    if (known.includes(type)) return;
    throw new HeadwaterError(
      'PROCESS_OUTPUT_UNKNOWN',
      `processor ${name} sends ${type.name}, whose topic is unknown. Add it to a forFeature([...]), then retry the parked record.`,
      { facts: { processor: name, type: type.name } },
    );
  }
}

function timerUnheard(processor: string, id: string): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_TIMER_UNHEARD',
    `processor ${processor} sets timer ${JSON.stringify(id)}, and has no method with @OnTimer(). Add one, then retry the parked record.`,
    { facts: { processor, id } },
  );
}

function encodedState(processor: string, key: string, value: unknown): Buffer {
  try {
    const text = JSON.stringify(value) as string | undefined;
    if (text !== undefined) return Buffer.from(text);
  } catch (cause) {
    throw stateInvalid(processor, key, errorMessage(cause), cause);
  }
  throw stateInvalid(processor, key, `${typeof value} has no JSON`);
}

function stateInvalid(processor: string, key: string, why: string, cause?: unknown): HeadwaterError {
  return new HeadwaterError(
    'PROCESS_STATE_INVALID',
    `processor ${processor} cannot keep its state of ${JSON.stringify(key)}: ${why}. Keep what JSON holds, a bigint as text; then retry the parked record.`,
    { facts: { processor, key }, cause },
  );
}

function isPromise(value: Sent | Promise<Sent>): value is Promise<Sent> {
  return typeof (value as Promise<Sent> | undefined)?.then === 'function';
}
