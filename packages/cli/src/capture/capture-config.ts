import { defaultPartitions } from '@headwater/core';
import {
  ownTopicsOf,
  ownTopicsTwice,
  parseTableName,
  sharedTopics,
  tablesInOwnTopics,
  topicOfTable,
} from '@headwater/cdc';
import type { CapturedTable, CaptureOptions } from '@headwater/cdc';
import type { Config } from '../config.js';
import { kafkaSettings } from '../kafka-settings.js';
import {
  either,
  flag,
  integer,
  isObject,
  list,
  matching,
  object,
  oneOf,
  optional,
  required,
  text,
  type Check,
} from '../settings.js';
import { UsageError } from '../usage.js';
import { connectionStringOf, postgresSettings } from './postgres-settings.js';

/** One capture of a file, without the log. */
export type CaptureSettings = Omit<CaptureOptions, 'log' | 'onError' | 'logger' | 'clock'> & {
  readonly slot: string;
  readonly publication: string;
};

const EXAMPLE =
  '{ "name": "shop", "postgres": { "connectionString": "postgres://…" }, "kafka": { "brokers": ["host:port"] }, "tables": ["public.orders"], "topics": { "prefix": "shop", "partitions": 4 } }';

const topicName = matching(/^[A-Za-z0-9._-]{1,249}$/, 'a topic name (letters, digits, ".", "_", "-")');
const tableName: Check = (value, at) =>
  typeof value === 'string' && parseTableName(value) !== undefined
    ? []
    : [
        `${at}: ${JSON.stringify(value)} is not schema.table. Write "public.orders"; quote a part with a dot in it: "\\"a.b\\".c".`,
      ];

const columnRule = either(
  [isObject, object({ truncate: required(integer(0), '{ "truncate": 10 }') })],
  [() => true, oneOf('exclude', 'mask', 'hash')],
);
const columnRules: Check = (value, at) =>
  isObject(value)
    ? Object.entries(value).flatMap(([column, rule]) => columnRule(rule, `${at}.${column}`))
    : [`${at}: not an object. Write { "email": "hash" }.`];

const tableObject = object({
  table: required(tableName, '"table": "public.orders"'),
  topic: optional(topicName),
  keyColumns: optional(list(text, '["id"]')),
  keyWithTable: optional(flag),
  partitionBy: optional(list(text, '["customer_id"]')),
  columns: optional(columnRules),
  only: optional(list(text, '["id", "name"]')),
  where: optional(text),
  toast: optional(oneOf('reread', 'mark')),
});
const table: Check = (value, at) => (isObject(value) ? tableObject : tableName)(value, at);

const OWN = {
  name: required(matching(/^[A-Za-z0-9_]{1,50}$/, 'a name (letters, digits, "_")'), '"name": "shop"'),
  postgres: required(postgresSettings, '"postgres": { "connectionString": "postgres://user@host/database" }'),
  tables: required(list(table, '["public.orders"]', 0), '"tables": ["public.orders"]'),
  topics: optional(
    object({
      prefix: optional(topicName),
      partitions: optional(integer(1)),
      replicationFactor: optional(integer(1, 32_767)),
      manage: optional(flag),
    }),
  ),
  snapshot: optional(oneOf('initial', 'never', 'only', 'when-needed')),
  outbox: optional(flag),
  hashKey: optional(text),
  generatedColumns: optional(oneOf('none', 'stored')),
  truncate: optional(oneOf('stop', 'tombstones', 'marker')),
  onRefused: optional(oneOf('halt', 'park')),
  slot: optional(matching(/^[a-z0-9_]{1,63}$/, 'a slot name (a-z, 0-9, "_", up to 63)')),
  publication: optional(matching(/^[^]{1,63}$/, 'a publication name (up to 63)')),
  positionTopic: optional(topicName),
  schemasTopic: optional(topicName),
  transactionsTopic: optional(topicName),
  transactionalId: optional(text),
  transactionTimeoutMs: optional(integer(1_000)),
  maxBatchBytes: optional(integer(1_024)),
  maxBatchRows: optional(integer(1)),
  snapshotChunkRows: optional(integer(1)),
  snapshotWorkers: optional(integer(1, 64)),
  maxQueuedBytes: optional(integer(65_536)),
  inboundTimeoutMs: optional(integer(1_000)),
  streaming: optional(oneOf('off', 'on')),
  spoolDirectory: optional(text),
};
const KAFKA = { kafka: required(kafkaSettings, '"kafka": { "brokers": ["host:port"] }') };
const one = object({ ...OWN, ...KAFKA });
const entry = object(OWN);

/**
 * The captures of a file: one at its top, or several in `captures`, which take from the top what they do not say themselves. Throws a UsageError
 * with every mistake, each with its remedy.
 */
export function captureSettings({ path, file }: Config): readonly CaptureSettings[] {
  if (path === undefined)
    throw new UsageError(['A capture is described by a file.'], `Type: --config FILE, with ${EXAMPLE}`);
  const mistakes = mistakesOf(file);
  if (mistakes.length === 0) {
    const captures = entriesOf(file).map(settingsOf);
    mistakes.push(...clashes(captures));
    if (mistakes.length === 0) return captures;
  }
  throw new UsageError(
    mistakes.map((mistake) => `${path}: ${mistake}`),
    `Correct ${mistakes.length === 1 ? 'it' : `all ${mistakes.length}`}, then type the same again. A whole file: ${EXAMPLE}`,
  );
}

type Entry = Readonly<Record<string, unknown>>;

function entriesOf(file: Entry): readonly Entry[] {
  const { captures, ...shared } = Object.fromEntries(Object.entries(file).filter(([name]) => name !== 'kafka'));
  return captures === undefined ? [shared] : (captures as readonly Entry[]).map((own) => ({ ...shared, ...own }));
}

function mistakesOf(file: Entry): string[] {
  const { captures, kafka, ...shared } = file;
  if (captures === undefined) return [...one(file, '')];
  if (!Array.isArray(captures) || captures.length === 0 || !captures.every(isObject))
    return [
      `captures: not a list of one or more objects. Write "captures": [${EXAMPLE}].`,
      ...object(KAFKA)({ kafka }, ''),
    ];
  const mistakes = [...object(KAFKA)(kafka === undefined ? {} : { kafka }, '')];
  captures.forEach((own: Entry, i) => mistakes.push(...entry({ ...shared, ...own }, `captures[${i}]`)));
  return mistakes;
}

/** Of an entry that was checked. */
function settingsOf(given: Entry): CaptureSettings {
  const { postgres, tables, topics, ...rest } = given as unknown as Omit<CaptureOptions, 'tables' | 'topics'> & {
    readonly postgres: Entry;
    readonly tables: readonly (string | Partial<CapturedTable>)[];
    readonly topics?: {
      readonly prefix?: string;
      readonly partitions?: number;
      readonly replicationFactor?: number;
      readonly manage?: boolean;
    };
  };
  const { prefix = rest.name, partitions = defaultPartitions, replicationFactor, manage = true } = topics ?? {};
  const captured = tables.map((wanted): CapturedTable => {
    const more = typeof wanted === 'string' ? { table: wanted } : wanted;
    return { ...more, table: more.table!, topic: more.topic ?? topicOfTable(prefix, parseTableName(more.table!)!) };
  });
  return {
    ...rest,
    slot: rest.slot ?? `headwater_${rest.name}`,
    publication: rest.publication ?? `headwater_${rest.name}`,
    connectionString: connectionStringOf(postgres),
    tables: captured,
    ...(manage ? { topics: { partitions, ...(replicationFactor === undefined ? {} : { replicationFactor }) } } : {}),
    snapshot: rest.snapshot ?? 'initial',
    outbox: rest.outbox ?? false,
  };
}

/** What each capture may say, but not together with the others. */
function clashes(captures: readonly CaptureSettings[]): string[] {
  const mistakes: string[] = [];
  const slot = /^[a-z0-9_]{1,63}$/;
  for (const capture of captures) {
    if (!slot.test(capture.slot))
      mistakes.push(
        `slot: "${capture.slot}" is no slot name (a-z, 0-9, "_", up to 63). Give capture ${capture.name} a "slot".`,
      );
    for (const { table: name, topic } of capture.tables)
      if (topic.length > 249)
        mistakes.push(`tables: the topic of ${name} is longer than 249 characters. Give it a "topic".`);
  }
  const repeated = (what: string, of: readonly string[], remedy: string) =>
    [...new Set(of.filter((value, i) => of.indexOf(value) !== i))].map(
      (value) => `${what} ${value} is there twice. ${remedy}`,
    );
  mistakes.push(
    ...repeated(
      'name:',
      captures.map(({ name }) => name),
      'Each capture has a name of its own.',
    ),
  );
  const slots = captures.map(({ slot: name, connectionString }) => {
    const { host, pathname } = new URL(connectionString);
    return `"${name}" on ${host}${pathname}`;
  });
  mistakes.push(...repeated('slot:', slots, 'Each capture has a slot of its own.'));
  for (const { name, tables } of captures)
    mistakes.push(
      ...repeated(
        `tables: in capture ${name},`,
        tables.map((of) => of.table),
        'Name it once.',
      ),
    );
  const topics = captures.flatMap((of) => [
    ...new Set(of.tables.map(({ topic }) => topic)),
    ...(of.transactionsTopic === undefined ? [] : [of.transactionsTopic]),
  ]);
  mistakes.push(
    ...repeated('topics:', topics, 'Each capture has topics of its own: give captures a prefix, tables a "topic".'),
    ...captures.flatMap((of) => sharedTopics(of.tables).map((fault) => `tables: ${fault}`)),
    ...tablesInOwnTopics(
      captures.flatMap((of) => of.tables),
      captures.flatMap(ownTopicsOf),
    ).map((fault) => `tables: ${fault}`),
    ...captures.flatMap((of) => ownTopicsTwice(ownTopicsOf(of)).map((fault) => `topics: ${fault}`)),
  );
  return [...mistakes, ...collisions(captures)];
}

/** Kafka refuses a topic that differs from another only in "." and "_". */
function collisions(captures: readonly CaptureSettings[]): string[] {
  const seen = new Map<string, string>();
  return captures.flatMap(({ tables }) =>
    tables.flatMap(({ topic }) => {
      const plain = topic.replaceAll('.', '_');
      const other = seen.get(plain) ?? topic;
      seen.set(plain, other);
      return other === topic
        ? []
        : [`topics: Kafka takes ${other} and ${topic} for the same. Give one of the tables a "topic".`];
    }),
  );
}
