/** The facts an error carries, besides its message. */
export type ErrorFacts = Readonly<Record<string, unknown>>;

export interface HeadwaterErrorOptions {
  /** True when the same call may succeed later without a change by a person. Default false. */
  readonly retryable?: boolean;
  readonly facts?: ErrorFacts;
  readonly cause?: unknown;
}

/**
 * Every error Headwater throws on purpose. `code` is stable and listed in docs/errors.md; the message begins with it and ends
 * with the next step. Callers ask `retryable`, they never parse the message.
 */
export class HeadwaterError extends Error {
  readonly code: string;
  readonly retryable: boolean;
  readonly facts: ErrorFacts;

  constructor(code: string, message: string, options: HeadwaterErrorOptions = {}) {
    super(`${code}: ${message}`, { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.facts = options.facts ?? {};
  }
}

/** A business refusal by a handler: the command is answered with `reason`, nothing it wrote is kept, nothing is retried. */
export class Rejected extends HeadwaterError {
  readonly reason: string;

  constructor(reason: string, detail?: string) {
    super('REJECTED', detail ?? reason, { facts: { reason } });
    this.reason = reason;
  }
}

/** A record or message that does not fulfil its contract. */
export class ContractError extends HeadwaterError {
  constructor(subject: string, violations: readonly string[], cause?: unknown) {
    super(
      'CONTRACT_VIOLATED',
      `${subject}: ${violations.join('; ')}. Mend the producer, then retry the parked record.`,
      {
        facts: { subject, violations },
        cause,
      },
    );
  }
}

/** All mistakes of wiring at once, each with its remedy. */
export class WiringError extends HeadwaterError {
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[]) {
    super(
      'WIRING_INVALID',
      `${mistakes.length} mistake(s):\n${mistakes.map((mistake) => `  - ${mistake}`).join('\n')}`,
      {
        facts: { mistakes },
      },
    );
    this.mistakes = mistakes;
  }
}

/** What happened, in one line, whatever was thrown. Not `instanceof Error`: errors of other realms fail that. */
export function errorMessage(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'message' in error) {
    const message = String((error as { message: unknown }).message);
    return message !== '' ? message : 'code' in error ? String((error as { code: unknown }).code) : 'unknown error';
  }
  return String(error);
}

export function errorCode(error: unknown): string | undefined {
  if (typeof error === 'object' && error !== null && 'code' in error) return String((error as { code: unknown }).code);
  return undefined;
}
