import type { ByteReader } from '../bytes.js';
import { flexible, readError, type Answer, type Call, type CoordinatorType } from './call.js';

/** By the number of the request. */
export type SpokenVersions = Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number }>>;

/** What one broker speaks, and the features of the cluster as far as it knows them. */
export interface ApiVersions extends Answer {
  readonly versions: SpokenVersions;
  readonly transactionVersion: number;
}

export function apiVersions(): Call<ApiVersions> {
  return flexible(
    18,
    'ApiVersions',
    3,
    (body) => body.compactString('headwater').compactString('0.1.0').tags(),
    (answer) => {
      const error = answer.int16();
      const versions: Record<number, { minVersion: number; maxVersion: number }> = {};
      let transactionVersion = 0;
      // Who does not know this version answers in the oldest one.
      if (error !== 0) return { error, versions, transactionVersion };
      answer.compactArray(() => {
        versions[answer.int16()] = { minVersion: answer.int16(), maxVersion: answer.int16() };
        answer.tags();
      });
      answer.int32();
      answer.tags((tag) => {
        if (tag !== 2) return; // 2: finalized features
        answer.compactArray(() => {
          const [feature, level] = [answer.compactString(), answer.int16()];
          if (feature === 'transaction.version') transactionVersion = level;
          answer.int16();
          answer.tags();
        });
      });
      return { error, versions, transactionVersion };
    },
    { plainHeader: true },
  );
}

export interface ClusterMetadata {
  readonly brokers: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[];
  readonly topics: readonly TopicMetadata[];
}

export interface TopicMetadata extends Answer {
  readonly topic: string;
  /** A UUID as Kafka writes it: base64url. */
  readonly id: string;
  /** `leaders[partition]`, -1 while there is none. */
  readonly leaders: readonly number[];
  /** `leaderEpochs[partition]`: another one with every leader. */
  readonly leaderEpochs: readonly number[];
  /** Of the partition that has the fewest. */
  readonly replicas: number;
}

export function metadata(topics: readonly string[]): Call<ClusterMetadata> {
  const noId = Buffer.alloc(16);
  return flexible(
    3,
    'Metadata',
    12,
    (body) => {
      body.compactArray(topics, (topic) => body.raw(noId).compactString(topic).tags());
      body.bool(false).bool(false).tags(); // create nothing, list no operations
    },
    (answer) => {
      answer.int32();
      const brokers = answer.compactArray(() => {
        const broker = { nodeId: answer.int32(), host: answer.compactString() ?? '', port: answer.int32() };
        answer.compactString();
        answer.tags();
        return broker;
      });
      answer.compactString();
      answer.int32();
      return { brokers, topics: answer.compactArray(() => readTopicMetadata(answer)) };
    },
  );
}

function readTopicMetadata(answer: ByteReader): TopicMetadata {
  const error = answer.int16();
  const topic = answer.compactString() ?? '';
  const id = answer.uuid();
  answer.bool();
  let replicas = Infinity;
  const leaders: number[] = [];
  const leaderEpochs: number[] = [];
  answer.compactArray(() => {
    answer.int16();
    const partition = answer.int32();
    leaders[partition] = answer.int32();
    leaderEpochs[partition] = answer.int32();
    replicas = Math.min(replicas, answer.compactArray(() => answer.int32()).length);
    answer.compactArray(() => answer.int32()); // in sync
    answer.compactArray(() => answer.int32()); // offline
    answer.tags();
  });
  answer.int32();
  answer.tags();
  return { topic, id, error, leaders, leaderEpochs, replicas };
}

export function findCoordinator(type: CoordinatorType, key: string): Call<Answer & { nodeId: number }> {
  return flexible(
    10,
    'FindCoordinator',
    3,
    (body) => body.compactString(key).int8(type).tags(),
    (answer) => {
      const { error } = readError(answer);
      answer.compactString();
      return { error, nodeId: answer.int32() };
    },
  );
}
