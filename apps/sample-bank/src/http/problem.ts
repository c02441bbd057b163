import {
  Catch,
  HttpException,
  Logger,
  type ArgumentsHost,
  type ExceptionFilter,
  type ValidationError,
} from '@nestjs/common';
import { errorCode, errorMessage } from '@headwater/core';

/** A refusal with a code of its own: application/problem+json (RFC 9457). */
export class Problem extends HttpException {
  constructor(
    status: number,
    readonly code: string,
    detail: string,
    readonly errors?: readonly { readonly field: string; readonly message: string }[],
  ) {
    super(detail, status);
  }
}

export function invalidBody(errors: readonly ValidationError[]): Problem {
  const fields = errors.flatMap((error) => flatten(error, ''));
  return new Problem(400, 'invalid-body', fields.map((field) => field.message).join('; '), fields);
}

/** Every error as problem+json. What is not ours is a 500 that tells nothing but its code. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  readonly #logger = new Logger('Http');

  catch(error: unknown, host: ArgumentsHost): void {
    const response = host.switchToHttp().getResponse<{
      status(code: number): { type(type: string): { send(body: string): void } };
    }>();
    const problem = this.#describe(error);
    response.status(problem.status).type('application/problem+json').send(JSON.stringify(problem));
  }

  #describe(error: unknown) {
    if (error instanceof Problem) {
      return {
        ...base(error.getStatus(), error.code, error.message),
        ...(error.errors === undefined ? {} : { errors: error.errors }),
      };
    }
    if (errorCode(error) === 'PROJECTION_BEHIND') return base(504, 'projection-behind', errorMessage(error));
    if (error instanceof HttpException) return base(error.getStatus(), codeOf(error.getStatus()), error.message);
    this.#logger.error(errorMessage(error), error instanceof Error ? error.stack : undefined);
    // A serialization failure, a deadlock or a lost connection: with an idempotency key the same request may be sent again.
    const code = errorCode(error) ?? '';
    if (/^(40|08|57P|53)/.test(code) || /^E(CONN|PIPE|TIMEDOUT)/.test(code)) {
      return base(
        503,
        'try-again',
        'The database could not finish the request. Send it again with the same Idempotency-Key.',
      );
    }
    return base(500, 'internal', 'The request failed. The log of the server tells why.');
  }
}

function base(status: number, code: string, detail: string) {
  return { type: `https://headwater.dev/problems/${code}`, title: code.replaceAll('-', ' '), status, detail, code };
}

function codeOf(status: number): string {
  return status === 404
    ? 'not-found'
    : status === 400
      ? 'invalid-request'
      : status === 503
        ? 'unavailable'
        : `http-${status}`;
}

function flatten(error: ValidationError, path: string): { field: string; message: string }[] {
  const field = path === '' ? error.property : `${path}.${error.property}`;
  const own = Object.values(error.constraints ?? {}).map((message) => ({ field, message }));
  return [...own, ...(error.children ?? []).flatMap((child) => flatten(child, field))];
}
