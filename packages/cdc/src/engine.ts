import { compacted, errorCode, errorMessage, modelOf } from '@headwater/core';
import type { Engine, EngineContext, Health, Running } from '@headwater/core';
import { captureMetrics } from './capture-metrics.js';
import { Capture } from './capture.js';
import type { CapturedTable, CaptureOptions } from './capture.options.js';
import type { SlotAlarmPolicy } from './slot-health.js';
import { positionTopicOf } from './own-topics.js';
import { parkingTopics } from './parking/parked-topics.js';
import { SlotWatch } from './slot-watch.js';

export interface CaptureEngineOptions {
  readonly name: string;
  readonly connectionString: string;
  /** Default `initial`. */
  readonly snapshot?: CaptureOptions['snapshot'];
  /** What becomes of a change that its topic does not take, that cannot be encoded, or, with `contracts`, that breaks its class. Default `halt`. */
  readonly onRefused?: CaptureOptions['onRefused'];
  /** `checked`: every row must fulfil its `@Changelog` class before it is published, at several times the cost per row. Default: readers check. */
  readonly contracts?: 'checked' | 'unchecked';
  /** Default `off`. */
  readonly streaming?: CaptureOptions['streaming'];
  /** Default: the system's for temporary files. */
  readonly spoolDirectory?: string;
  /** When the slot is worth a warning in the log and an alarm in the metrics. Default SLOT_ALARM_DEFAULTS. */
  readonly slotAlarms?: SlotAlarmPolicy;
}

const STANDBY_PAUSE_MS = 1_000;

/** Captures every `@Changelog({ table })` of the application, and its outbox. Role `capture`; any number of processes, one of them active. */
export function capture(options: CaptureEngineOptions): Engine {
  return {
    name: 'capture',
    plan(features) {
      const tables = features.classes.flatMap((type): CapturedTable[] => {
        const model = modelOf(type);
        const contract = options.contracts === 'checked' ? { contract: type } : {};
        return model?.table === undefined ? [] : [{ table: model.table, topic: model.topic, ...contract }];
      });
      return {
        mistakes: duplicates(tables),
        topics: [
          { ...compacted(positionTopicOf(options.name)), partitions: 1 },
          ...(options.onRefused === 'park' ? parkingTopics(options.name) : []),
        ],
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
      ...(options.onRefused === undefined ? {} : { onRefused: options.onRefused }),
      outbox: true,
      ...(options.streaming === undefined ? {} : { streaming: options.streaming }),
      ...(options.spoolDirectory === undefined ? {} : { spoolDirectory: options.spoolDirectory }),
      logger: { info: (message) => logger.log(message), warn: (message) => logger.warn(message) },
    });
  let current = open();
  const watch = new SlotWatch({
    name: options.name,
    connectionString: options.connectionString,
    slot: `headwater_${options.name}`,
    clock: context.clock,
    logger: { info: (message) => logger.log(message), warn: (message) => logger.warn(message) },
    ...(options.slotAlarms === undefined ? {} : { alarms: options.slotAlarms }),
  });
  await current.start();
  watch.start();
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
      await watch.stop();
    },
    health: (): Health => {
      const { state, ...facts } = current.status();
      const { health: slot, lagBytes, lagMs, alarms } = watch.watched(facts.endLsn);
      return {
        name: `capture ${options.name}`,
        status: facts.unpublished.length > 0 ? 'down' : healthOf(state),
        facts: { state, ...facts, lagBytes, lagMs, slot, alarms },
      };
    },
    metrics: () => captureMetrics(options.name, current.status(), watch.watched(current.status().endLsn)),
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
