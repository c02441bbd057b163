export { Capture } from './capture.js';
export type { CaptureState, CaptureStatus } from './capture.js';
export type { CapturedTable, CaptureLogger, CaptureOptions } from './capture.options.js';
export { CaptureError } from './cdc.errors.js';
export type { CdcErrorCode } from './cdc.errors.js';
export { OUTBOX_PREFIX } from './outbox-message.js';
export { capture, positionTopicOf } from './engine.js';
export type { CaptureEngineOptions } from './engine.js';
