export { KAFKA_DEFAULTS, kafkaLog } from './kafka-log.js';
export type { KafkaOptions } from './kafka-log.js';
export type { Compression } from './codecs.js';
export { KafkaError } from './kafka.errors.js';
export type { KafkaErrorCode } from './kafka.errors.js';
export type { OauthBearerToken, SaslOptions } from './sasl.js';
