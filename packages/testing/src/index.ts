export { devServices, endOrphans, type DevServices, type DevServicesOptions } from './dev-services.js';
export { chooseServices, type ServicesChoice, type ServicesMode, type ServicesSituation } from './choose-services.js';
export {
  kafkaCluster,
  type KafkaCluster,
  type KafkaClusterOptions,
  type KafkaNode,
  type KafkaPorts,
} from './kafka-cluster.js';
export { KAFKA_VERSIONS } from './kafka-distribution.js';
export type { ServerHandle } from './server-process.js';
export { ServicesError } from './testing.errors.js';
export { testDatabase, type TestDatabase } from './test-database.js';
export {
  postgresPair,
  STANDBY_SLOT,
  type PostgresOfPair,
  type PostgresPair,
  type PostgresPairOptions,
} from './postgres-pair.js';
export { certificateAuthority, type Certificate, type CertificateAuthority } from './certificates.js';
export { securedPostgres, type SecuredPostgresOptions } from './secured-postgres.js';
export type { EmbeddedPostgres } from './embedded-postgres.js';
export { eventually } from './eventually.js';
export { settledOffsets } from './settled-offsets.js';
export { uniqueName } from './unique-name.js';
export { freePort } from './free-port.js';
export { runJava } from './java-program.js';
export {
  faultProxy,
  type Decide,
  type Fault,
  type FaultProxy,
  type FaultProxyOptions,
  type ProxiedRequest,
  type StruckRequest,
} from './fault-proxy.js';
export {
  postgresFaultProxy,
  type DecideMessage,
  type PostgresFaultProxy,
  type ProxiedMessage,
  type StruckMessage,
} from './postgres-fault-proxy.js';
export type { FrameFault } from './fault-link.js';
export type { FaultControls, ProxyTarget } from './fault-relay.js';
export type { KafkaRequest } from './kafka-frames.js';
export { memoryLog, type MemoryClient, type MemoryLog, type MemoryLogOptions } from './memory-log/memory-log.js';
export type { CallFault, LogCall, MemoryClientOptions } from './memory-log/connection.js';
export type { Marker } from './memory-log/memory-cluster.js';
export { seededRandom, type Random } from './virtual-clock/random.js';
export { virtualClock, type MachineClock, type VirtualClock } from './virtual-clock/virtual-clock.js';
