/** Below the broker's default message.max.bytes of 1,048,588. */
export const MAX_BATCH_BYTES = 1_000_000;
export const MAX_REQUEST_BYTES = 8_000_000;
/** A record above MAX_BATCH_BYTES has a batch of its own, and max.message.bytes of its topic decides. */
export const MAX_RECORD_BYTES = MAX_REQUEST_BYTES;
