import { createHmac, timingSafeEqual } from 'node:crypto';

/** What may be asked of a running capture. `id` names the snapshot; a repeated request does nothing more. */
export type Signal =
  | {
      readonly signal: 'snapshot';
      readonly id: string;
      /** As the capture names them. */
      readonly tables: readonly string[];
      /** SQL condition on their rows. */
      readonly where: string | null;
    }
  | { readonly signal: 'pause' | 'resume' | 'stop'; readonly id: string };

/**
 * The content of a logical message with the signal prefix. Any role may write logical messages and a condition is SQL that capture runs: so it is signed
 * with the key that the position of the capture holds, which takes read access to its position topic.
 */
export function signalContent(capture: string, key: string, signal: Signal): string {
  const body = JSON.stringify(signal);
  return JSON.stringify([capture, body, mac(capture, key, body)]);
}

/** Undefined: for another capture. Throws a RangeError when it is for this one and not readable or not signed with its key. */
export function parseSignal(content: Buffer, capture: string, key: string): Signal | undefined {
  const fields = readFields(content);
  if (fields === undefined || fields[0] !== capture) return undefined;
  const [, body, signature] = fields;
  const [wanted, found] = [mac(capture, key, body), signature].map((text) => Buffer.from(text));
  if (wanted!.length !== found!.length || !timingSafeEqual(wanted!, found!)) {
    throw new RangeError('it is not signed with the key of this capture');
  }
  return JSON.parse(body) as Signal;
}

function readFields(content: Buffer): [capture: string, body: string, signature: string] | undefined {
  try {
    const fields: unknown = JSON.parse(content.toString());
    const texts = Array.isArray(fields) && fields.length === 3 && fields.every((field) => typeof field === 'string');
    return texts ? (fields as [string, string, string]) : undefined;
  } catch {
    return undefined;
  }
}

function mac(capture: string, key: string, body: string): string {
  return createHmac('sha256', Buffer.from(key, 'hex')).update(`${capture}\n${body}`).digest('hex');
}
