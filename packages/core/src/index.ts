export { backoffMs, systemClock } from './clock/clock.js';
export type { Clock } from './clock/clock.js';
export {
  ContractError,
  HeadwaterError,
  Rejected,
  WiringError,
  errorCode,
  errorMessage,
} from './errors/headwater.error.js';
export type { ErrorFacts, HeadwaterErrorOptions } from './errors/headwater.error.js';
export { silentLogger } from './lifecycle/running.js';
export type { Health, Logger, Running } from './lifecycle/running.js';
export { prometheusText } from './lifecycle/metric.js';
export type { Metric } from './lifecycle/metric.js';
export { handOver } from './log/co-partitions.js';
export type { HandOver } from './log/co-partitions.js';
export { HeldTenure, wholly } from './log/tenure.js';
export { headerText, textHeaders } from './log/headers.js';
export { readCommitted } from './log/read-committed.js';
export { murmur2, partitionOf } from './log/partitioner.js';
export {
  BATCH_HEADER_BYTES,
  BatchCutter,
  MAX_RECORD_BYTES,
  fillTo,
  recordBodyBytes,
  recordBytesAtMost,
} from './log/batch-cutter.js';
export type { Batch, KnownLimits } from './log/batch-cutter.js';
export { decodeRun, isRun, recordsOf } from './log/record-run.js';
export type { LogInput, RecordRun } from './log/record-run.js';
export { BufferPool } from './log/buffer-pool.js';
export { bufferView } from './log/buffer-view.js';
export { RecordRuns } from './log/record-runs.js';
export type { RecordGuard, TakenRun, TopicRuns } from './log/record-runs.js';
export type { OpenRun } from './log/open-run.js';
export { putVarint, varintSize } from './log/varint.js';
export type {
  Assignment,
  FetchedBatch,
  GroupOffsets,
  GroupOptions,
  Header,
  Log,
  LogAdmin,
  LogGroup,
  LogProducer,
  LogReader,
  LogRecord,
  LogTransaction,
  LogWriter,
  Membership,
  OpenTransaction,
  Outcome,
  OutRecord,
  PartitionOffset,
  PollOptions,
  TopicDifference,
  TopicPartition,
  TopicSpec,
  ProducerOptions,
  Share,
  Tenure,
  WriterOptions,
} from './log/log.js';
export { camelCase, decodeMessage, encodeMessage, keyOf, snakeCase } from './model/codec.js';
export type { EncodedMessage } from './model/codec.js';
export { envelopeFields, envelopeHeaders } from './model/envelope.js';
export type { Envelope } from './model/envelope.js';
export { Changelog, Command, Event, Int64, Key, int64Properties, keyProperties, modelOf } from './model/model.js';
export type { ChangelogOptions, MessageClass, MessageOptions, Model, ModelKind } from './model/model.js';
export { On, changeOf, handlerFor, handlersOf, topicsOf } from './model/on.js';
export type { Change, Handler } from './model/on.js';
export { defaultPartitions } from './module/options.js';
export type { HeadwaterOptions } from './module/options.js';
export { ROLES, compacted, keptForEver } from './module/engine.js';
export type { Engine, EngineContext, EnginePart, EnginePlan, Features, PlannedTopic, Role } from './module/engine.js';
export { wire } from './module/wiring.js';
export { connectionConfig } from './postgres/connection-config.js';
export { Database } from './postgres/database.js';
export type { Sql, WalToken } from './postgres/database.js';
export { emit, emitContext, emitNow, emitText } from './postgres/outbox.js';
export type { EmitOptions, TextMessage } from './postgres/outbox.js';
export { outbox } from './postgres/transactional-outbox.js';
export { transactionHandle } from './postgres/transaction-handle.js';
export type { TransactionHandle } from './postgres/transaction-handle.js';
export { ensureSchema, quoteName } from './postgres/schema.js';
export { ApplyRunner } from './apply/apply-runner.js';
export type { ApplyOptions } from './apply/apply-runner.js';
export type { ApplyDefinition } from './apply/apply-definition.js';
export { Frontier, awaitToken } from './apply/frontier.js';
export type { FrontierOptions } from './apply/frontier.js';
export { ProcessRunner } from './process/process-runner.js';
export type { LocalValue, ProcessOptions } from './process/process-runner.js';
export { DEFAULT_FAILURE_POLICY, controlTopicOf, groupOf, parkedTopicOf, stateTopicOf } from './process/processor.js';
export type { DueTimer, FailurePolicy, ProcessContext, ProcessorDefinition } from './process/processor.js';
export { processorTopics, processors } from './processors/engine.js';
export type { ProcessorsOptions } from './processors/engine.js';
export { OnTimer, Processor } from './processors/processor.js';
export type { ProcessorOptions, Sent, TaskContext } from './processors/processor.js';
export { controlEvent, decodeControl } from './process/control.js';
export type { ControlOrder, ControlResult, ParkedAct } from './process/control.js';
export { controlParked, listParked, showParked } from './process/parked-control.js';
export type { ControlRequest, Controlled, ParkedSequence } from './process/parked-control.js';
export {
  appendParked,
  boundsEntry,
  boundsOf,
  decodeBounds,
  dropAll,
  dropFirst,
  replaceFirst,
  unitEntry,
} from './process/parked-sequence.js';
export type { Bounds } from './process/parked-sequence.js';
export { decodeParkedUnit, encodeParkedUnit } from './process/parked-unit.js';
export type { ParkedUnit } from './process/parked-unit.js';
export type { Entries, EntryWrites } from './process/write-set.js';
export { nameOf as nameOfUnit } from './process/suspects.js';
export type { Unit } from './process/suspects.js';
export { dedupe } from './process/dedupe.js';
export type { DedupeOptions } from './process/dedupe.js';
export { repartition } from './process/repartition.js';
export type { Repartition, RepartitionOptions } from './process/repartition.js';
export type { Table } from './process/global-table.js';
export { memoryStore } from './process/state-store.js';
export type { OpenStateStore, StateChange, StateEntries, StateStore, StateTask } from './process/state-store.js';
export { Task } from './process/task.js';
