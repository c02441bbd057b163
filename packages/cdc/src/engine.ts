import { compacted, errorCode, errorMessage, modelOf } from '@headwater/core';
import type { Engine, EngineContext, Health, Running } from '@headwater/core';
import { Capture } from './capture.js';
import type { CapturedTable, CaptureOptions } from './capture.options.js';

export interface CaptureEngineOptions {
  readonly name: string;
  readonly connectionString: string;
  /** Default `initial`. */
  readonly snapshot?: CaptureOptions['snapshot'];
}

const STANDBY_PAUSE_MS = 1_000;

/** The topic that holds how far the capture of this name is durable. */
export const positionTopicOf = (name: string): string => `headwater.cdc.${name}.position`;

/** Captures every `@Changelog({ table })` of the application, and its outbox. Role `capture`; any number of processes, one of them active. */
export function capture(options: CaptureEngineOptions): Engine {
  return {
    name: 'capture',
    plan(features) {
      const tables = features.classes.flatMap((type): CapturedTable[] => {
        const model = modelOf(type);
        return model?.table === undefined ? [] : [{ table: model.table, topic: model.topic }];
      });
      return {
        mistakes: duplicates(tables),
        topics: [{ ...compacted(positionTopicOf(options.name)), partitions: 1 }],
        ddl: [],
        parts: [{ role: 'capture', start: async (context) => [await startCapture(options, tables, context)] }],
      };
    },
  };
}

/**
 * One capture of this process after another. A capture that another owner has fenced is over for good; a new one stands by for the slot.
 * Every other halt stays: it names a cause that a person must mend.
 */
async function startCapture(
  options: CaptureEngineOptions,
  tables: readonly CapturedTable[],
  context: EngineContext,
): Promise<Running> {
  const { logger } = context;
  const stop = new AbortController();
  const open = () =>
    new Capture({
      name: options.name,
      connectionString: options.connectionString,
      log: context.log,
      tables,
      snapshot: options.snapshot ?? 'initial',
      outbox: true,
      logger: { info: (message) => logger.log(message), warn: (message) => logger.warn(message) },
    });
  let current = open();
  await current.start();
  const follow = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        return await current.finished;
      } catch (error) {
        logger.error(`capture ${options.name}: ${errorMessage(error)}`);
        if (errorCode(error) !== 'CDC_FENCED') return;
        await context.clock.wait(STANDBY_PAUSE_MS, stop.signal);
        current = open();
        void current.start().catch(() => undefined); // `finished` tells
      }
    }
  };
  const followed = follow();
  return {
    async stop() {
      stop.abort();
      await current.stop();
      await followed;
    },
    health: (): Health => {
      const { state, ...facts } = current.status();
      return {
        name: `capture ${options.name}`,
        status: facts.unpublished.length > 0 ? 'down' : healthOf(state),
        facts: { state, ...facts },
      };
    },
  };
}

/** A standby that waits for the slot is well: it takes over when the owner is gone. */
export function healthOf(state: ReturnType<Capture['status']>['state']): Health['status'] {
  if (state === 'streaming' || state === 'waiting') return 'up';
  return state === 'halted' || state === 'stopped' ? 'down' : 'starting';
}

function duplicates(tables: readonly CapturedTable[]): string[] {
  const topics = new Map<string, string>();
  return tables.flatMap(({ table, topic }) => {
    const other = topics.get(topic);
    topics.set(topic, table);
    return other === undefined || other === table
      ? []
      : [`Tables ${other} and ${table} are both captured into ${topic}. Give each a topic of its own.`];
  });
}
