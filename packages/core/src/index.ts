export {
  ContractError,
  HeadwaterError,
  Rejected,
  WiringError,
  errorCode,
  errorMessage,
} from './errors/headwater.error.js';
export type { ErrorFacts, HeadwaterErrorOptions } from './errors/headwater.error.js';
export { headerText, textHeaders } from './log/headers.js';
export { murmur2, partitionOf } from './log/partitioner.js';
export type {
  Assignment,
  FetchedBatch,
  GroupOffsets,
  GroupOptions,
  Header,
  Log,
  LogAdmin,
  LogGroup,
  LogReader,
  LogRecord,
  LogTransaction,
  LogWriter,
  Membership,
  Outcome,
  OutRecord,
  PartitionOffset,
  TopicPartition,
  TopicSpec,
  WriterOptions,
} from './log/log.js';
