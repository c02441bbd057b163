import { timingSafeEqual } from 'node:crypto';
import { Inject, Injectable, type CanActivate, type ExecutionContext } from '@nestjs/common';
import type { BankConfig } from '../config.js';
import { Problem } from '../http/problem.js';

export const BANK_CONFIG = Symbol('bank:config');

/** Operators show HEADWATER_ADMIN_TOKEN as a bearer token; when none is set, only callers on this machine are let in. */
@Injectable()
export class OperatorGuard implements CanActivate {
  constructor(@Inject(BANK_CONFIG) private readonly config: BankConfig) {}

  canActivate(context: ExecutionContext): boolean {
    const request = context
      .switchToHttp()
      .getRequest<{ headers: Record<string, string | undefined>; socket: { remoteAddress?: string } }>();
    const { adminToken } = this.config;
    if (adminToken === undefined) {
      const address = request.socket.remoteAddress ?? '';
      if (/^(::1|(::ffff:)?127\.)/.test(address)) return true;
      throw new Problem(403, 'loopback-only', 'Set HEADWATER_ADMIN_TOKEN to allow operators from other machines.');
    }
    const shown = request.headers['authorization']?.replace(/^Bearer /, '');
    if (shown === undefined)
      throw new Problem(401, 'token-required', 'Send Authorization: Bearer <HEADWATER_ADMIN_TOKEN>.');
    const [a, b] = [Buffer.from(shown), Buffer.from(adminToken)];
    if (a.length === b.length && timingSafeEqual(a, b)) return true;
    throw new Problem(403, 'wrong-token', 'The bearer token is not HEADWATER_ADMIN_TOKEN.');
  }
}
