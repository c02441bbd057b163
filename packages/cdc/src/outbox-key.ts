import { createHash, timingSafeEqual } from 'node:crypto';
import type { Client } from 'pg';
import { CaptureError } from './cdc.errors.js';
import type { LogicalMessage } from './pgoutput.js';
import { textRows } from './postgres-session.js';

/** The pads of HMAC-SHA-256 with which the outbox of a database signs what it emits (core's outbox-schema). */
export interface OutboxKey {
  readonly inner: Buffer;
  readonly outer: Buffer;
}

const SIGNED = /^v1\.([0-9a-f]{64}) $/;
const SIGNATURE_BYTES = 68;

/**
 * What a message of ours says, without its signature; undefined when the outbox did not sign it for this prefix and this transaction
 * (`xid` undefined: not transactional). In a database without a key nothing is signed, and everything is taken at its word. Pure.
 */
export function openMessage(key: OutboxKey | undefined, message: LogicalMessage, xid: number | undefined) {
  const { content, prefix } = message;
  const signature = SIGNED.exec(content.toString('latin1', 0, SIGNATURE_BYTES))?.[1];
  if (signature === undefined) return key === undefined ? content : undefined;
  if (key === undefined) return undefined;
  const body = content.subarray(SIGNATURE_BYTES);
  const inner = createHash('sha256')
    .update(key.inner)
    .update(`${prefix}:${xid ?? '-'}:`)
    .update(body)
    .digest();
  const wanted = createHash('sha256').update(key.outer).update(inner).digest();
  return timingSafeEqual(wanted, Buffer.from(signature, 'hex')) ? body : undefined;
}

/** The key of this database; undefined when Headwater's schema is not installed. Throws CDC_SERVER_NOT_READY when it may not be read. */
export async function readOutboxKey(sql: Client): Promise<OutboxKey | undefined> {
  const [found] = await textRows(
    sql,
    `SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), current_user
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'headwater' AND c.relname = 'outbox_key'`,
  );
  if (found === undefined) return undefined;
  if (found[0] !== 't') {
    const remedy = `GRANT USAGE ON SCHEMA headwater TO "${found[1]}"; GRANT SELECT ON headwater.outbox_key TO "${found[1]}".`;
    throw new CaptureError(
      'CDC_SERVER_NOT_READY',
      `role "${found[1]}" may not read headwater.outbox_key, with which messages are told from forged ones. ${remedy}`,
      { faults: [remedy] },
    );
  }
  const [row] = await textRows(sql, 'SELECT inner_pad, outer_pad FROM headwater.outbox_key');
  return row && { inner: bytes(row[0]), outer: bytes(row[1]) };
}

function bytes(text: string | null | undefined): Buffer {
  return Buffer.from((text ?? '').slice(2), 'hex');
}

/** Opens messages with the key of one database, read again when a signature cannot be told: the schema may be newer than the connection. */
export class OutboxMessages {
  private constructor(
    private readonly sql: Client,
    private key: OutboxKey | undefined,
  ) {}

  static async of(sql: Client): Promise<OutboxMessages> {
    return new OutboxMessages(sql, await readOutboxKey(sql));
  }

  open(message: LogicalMessage, xid: number | undefined): Buffer | Promise<Buffer | undefined> {
    return openMessage(this.key, message, xid) ?? this.#openAgain(message, xid);
  }

  async #openAgain(message: LogicalMessage, xid: number | undefined): Promise<Buffer | undefined> {
    this.key = await readOutboxKey(this.sql);
    return openMessage(this.key, message, xid);
  }
}
