// A door of its own: what runs without an application (capture, the command line) must not load Nest.
export { HeadwaterModule } from './module/headwater.module.js';
export type { HeadwaterAsyncOptions } from './module/headwater.module.js';
export { HeadwaterRuntime } from './module/headwater.runtime.js';
export { HEADWATER_OPTIONS } from './module/tokens.js';
