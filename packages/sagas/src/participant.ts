import 'reflect-metadata';
import type { MessageClass, Sql } from '@headwater/core';

/** What a command handler works with. Everything done through `sql` and `emit` commits together with the inbox row and the reply. */
export interface SqlContext {
  readonly sql: Sql;
  readonly commandId: string;
  readonly sagaId: string;
  /** Publishes a message when, and only when, this command's work commits. */
  emit(message: object): Promise<void>;
}

export interface DeclaredHandler {
  readonly command: MessageClass;
  readonly method: string;
}

const HANDLERS = Symbol('headwater:command-handlers');

/**
 * Handles a command in Postgres: `async (command, context: SqlContext) => result`. Once per command id. Throw Rejected to refuse; any other
 * error is tried again, then answered as failed. Several commands share a transaction, each in a savepoint of its own.
 */
export function CommandHandler(command: MessageClass): MethodDecorator {
  return (target, method) => {
    const known = (Reflect.getMetadata(HANDLERS, target) as readonly DeclaredHandler[] | undefined) ?? [];
    Reflect.defineMetadata(HANDLERS, [...known, { command, method: String(method) }], target);
  };
}

export function commandHandlersOf(type: MessageClass): readonly DeclaredHandler[] {
  return (Reflect.getMetadata(HANDLERS, type.prototype as object) as readonly DeclaredHandler[] | undefined) ?? [];
}
