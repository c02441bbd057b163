export interface PostgresSplitterOptions {
  /** True for what the client sends: its first message has no type byte. */
  readonly startup: boolean;
  /** A whole message, type and length included; `type` is empty for the first one of a client. */
  readonly onFrame: (frame: Buffer, type: string) => void;
  /** The client asks for TLS or GSS before its startup message; not passed to `onFrame`. */
  readonly onEncryptionRequest?: () => void;
}

/** Cuts a byte stream into Postgres messages, however the bytes arrive. */
export function postgresSplitter(options: PostgresSplitterOptions): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  let started = !options.startup;
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      const head = started ? 1 : 0;
      if (rest.length < head + 4) return;
      const end = head + rest.readUInt32BE(head);
      if (rest.length < end) return;
      const frame = rest.subarray(0, end);
      rest = rest.subarray(end);
      if (!started && ENCRYPTION_REQUESTS.includes(frame.readUInt32BE(4))) {
        options.onEncryptionRequest?.();
        continue;
      }
      options.onFrame(frame, started ? String.fromCharCode(frame[0]!) : '');
      started = true;
    }
  };
}

/** The SQL text of a simple query or a parse; undefined for any other message. */
export function statementOf(frame: Buffer, type: string): string | undefined {
  if (type === 'Q') return frame.toString('utf8', 5, frame.length - 1);
  if (type !== 'P') return undefined;
  const text = frame.indexOf(0, 5) + 1;
  return frame.toString('utf8', text, frame.indexOf(0, text));
}

/** SSLRequest and GSSENCRequest. */
const ENCRYPTION_REQUESTS: readonly number[] = [80_877_103, 80_877_104];
