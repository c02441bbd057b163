/** Wrong usage or configuration: exit code 2. Each mistake says what to change. */
export class UsageError extends Error {
  /** What to type next. */
  readonly next: string;

  constructor(mistakes: readonly string[], next: string) {
    super(mistakes.join('\n'));
    this.name = 'UsageError';
    this.next = next;
  }
}
