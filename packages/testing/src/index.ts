export { devServices, endOrphans, type DevServices, type DevServicesOptions } from './dev-services.js';
export { chooseServices, type ServicesChoice, type ServicesMode, type ServicesSituation } from './choose-services.js';
export type { ServerHandle } from './server-process.js';
export { ServicesError } from './testing.errors.js';
export { testDatabase, type TestDatabase } from './test-database.js';
export { eventually } from './eventually.js';
export { uniqueName } from './unique-name.js';
export { freePort } from './free-port.js';
export {
  faultProxy,
  type Decide,
  type Fault,
  type FaultProxy,
  type FaultProxyOptions,
  type ProxiedRequest,
} from './fault-proxy.js';
export type { KafkaRequest } from './kafka-frames.js';
