import { KafkaError, refused } from './kafka.errors.js';
import type { Versions } from './lane.js';
import type { ApiVersions } from './requests/cluster.js';

/** What a cluster can, as far as it matters here. */
export interface Capabilities {
  readonly versions: Versions;
  readonly transactionVersion: number;
}

/** The request versions spoken; the newest of them, JoinGroup v9, came with Kafka 3.2. */
const NEEDED: readonly (readonly [apiKey: number, apiName: string, version: number])[] = [
  [0, 'Produce', 9],
  [1, 'Fetch', 13],
  [3, 'Metadata', 12],
  [9, 'OffsetFetch', 7],
  [11, 'JoinGroup', 9],
  [22, 'InitProducerId', 4],
];

/** Throws KAFKA_TOO_OLD, naming what is missing. */
export function capabilitiesOf({ error, versions, features }: ApiVersions): Capabilities {
  if (error !== 0) throw refused('ApiVersions', error);
  const missing = NEEDED.filter(([apiKey, , version]) => (versions.get(apiKey)?.maxVersion ?? -1) < version);
  if (missing.length > 0) {
    const names = missing.map(([, apiName, version]) => `${apiName} v${version}`).join(', ');
    throw new KafkaError('KAFKA_TOO_OLD', `the broker lacks ${names}. Upgrade it to Kafka 3.2 or later.`, {
      facts: { missing: names },
    });
  }
  return { versions: Object.fromEntries(versions), transactionVersion: features.get('transaction.version') ?? 0 };
}
