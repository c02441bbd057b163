import { backoffMs, type Clock } from '../clock/clock.js';
import { HeadwaterError, errorCode } from '../errors/headwater.error.js';
import type { Logger } from '../lifecycle/running.js';
import type { GroupOptions, Log, LogGroup, Tenure } from '../log/log.js';
import { prepareTopics } from './inputs.js';
import { groupOf, type ProcessorDefinition } from './processor.js';
import { inputsOf } from './topology.js';

/** Nothing but a person can mend these. */
const HALTS = new Set([
  'PROCESS_HALTED',
  'PROCESS_INPUT_LOST',
  'PROCESS_PARTITIONS_CHANGED',
  'PROCESS_STATE_FOREIGN',
  'PROCESS_STATE_REMADE',
]);

export interface MemberOptions {
  readonly log: Log;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly group: Omit<GroupOptions, 'groupId' | 'topics'>;
  readonly work: (tenure: Tenure) => Promise<void>;
  /** The work begins anew after this. */
  readonly onFailure: (error: unknown) => void;
  /** It does not begin anew: the group, the topics or the state refuse it for good. */
  readonly onEnd: (error: unknown) => void;
}

/**
 * An instance's membership in the group of its processor. Topics that do not fit are refused before the group is joined; one that is
 * missing, or brokers that do not answer, are waited for. What only a person can mend leaves the group.
 */
export class Member {
  readonly #definition: ProcessorDefinition;
  readonly #options: MemberOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #group: LogGroup | undefined;
  #told = false;

  constructor(definition: ProcessorDefinition, options: MemberOptions) {
    this.#definition = definition;
    this.#options = options;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#group?.stop();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log, logger, clock, group, onFailure, onEnd } = this.#options;
    const stopping = this.#stopping.signal;
    for (let attempt = 1; !stopping.aborted; attempt++) {
      try {
        if ((await prepareTopics(log, this.#definition)) === 'new') this.#tellThatNew(logger);
        if (stopping.aborted) return;
        const groupId = groupOf(this.#definition.name);
        this.#group = log.group({ ...group, groupId, topics: inputsOf(this.#definition) });
        return await this.#group.hold((tenure) => this.#work(tenure), onFailure);
      } catch (error) {
        if (stopping.aborted) return;
        if (!mayPass(error)) return onEnd(error);
        onFailure(error);
        await clock.wait(backoffMs(attempt, 200), stopping);
      }
    }
  }

  /** Its name is its identity: under another one it handles everything again. */
  #tellThatNew(logger: Logger): void {
    if (this.#told) return;
    this.#told = true;
    const { name, inputs } = this.#definition;
    logger.log(
      `processor ${name} has never run: it begins with the earliest records of ${inputs.join(', ')}. If it ran under another name, give it that name again.`,
    );
  }

  async #work(tenure: Tenure): Promise<void> {
    try {
      await this.#options.work(tenure);
    } catch (error) {
      if (!HALTS.has(errorCode(error) ?? '')) throw error;
      this.#options.onEnd(error);
      // Not awaited: the group waits for this work to end.
      void this.#group!.stop();
    }
  }
}

/** Also without a person: the brokers answer again, the topic is made again. */
function mayPass(error: unknown): boolean {
  return errorCode(error) === 'LOG_TOPIC_MISSING' || (error instanceof HeadwaterError && error.retryable);
}
