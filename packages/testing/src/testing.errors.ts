/** What went wrong while starting or finding the servers that development and tests need. The message names the next step. */
export class ServicesError extends Error {
  readonly retryable = false;

  constructor(
    readonly code: 'SERVICES_UNAVAILABLE' | 'SERVICES_MODE' | 'SERVICES_IN_USE' | 'SERVICES_START_FAILED',
    message: string,
    options?: { cause?: unknown },
  ) {
    super(`${code}: ${message}`, options);
    this.name = 'ServicesError';
  }
}
