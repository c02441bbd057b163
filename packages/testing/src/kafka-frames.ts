/** What a rule of the fault proxy sees of a request. */
export interface KafkaRequest {
  readonly apiKey: number;
  /** Name of the api key as Kafka calls it, else the number. */
  readonly apiName: string;
  readonly version: number;
  readonly correlationId: number;
  /** Empty when the client sent none. */
  readonly clientId: string;
  /** Length of the whole frame. */
  readonly bytes: number;
}

/** Cuts a byte stream into Kafka's length-prefixed frames, prefix included, however the bytes arrive. */
export function frameSplitter(onFrame: (frame: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 4) {
      const end = 4 + rest.readInt32BE(0);
      if (rest.length < end) return;
      const frame = rest.subarray(0, end);
      rest = rest.subarray(end);
      onFrame(frame);
    }
  };
}

/** Reads the header of a request frame: it has the same shape up to the client id in all versions. */
export function readRequest(frame: Buffer): KafkaRequest {
  const apiKey = frame.readInt16BE(4);
  const clientIdLength = frame.length >= 14 ? frame.readInt16BE(12) : -1;
  return {
    apiKey,
    apiName: API_NAMES[apiKey] ?? String(apiKey),
    version: frame.readInt16BE(6),
    correlationId: frame.readInt32BE(8),
    clientId: clientIdLength > 0 ? frame.toString('utf8', 14, 14 + clientIdLength) : '',
    bytes: frame.length,
  };
}

export function responseCorrelationId(frame: Buffer): number {
  return frame.readInt32BE(4);
}

const API_NAMES: Readonly<Record<number, string>> = {
  0: 'Produce',
  1: 'Fetch',
  2: 'ListOffsets',
  3: 'Metadata',
  8: 'OffsetCommit',
  9: 'OffsetFetch',
  10: 'FindCoordinator',
  11: 'JoinGroup',
  12: 'Heartbeat',
  13: 'LeaveGroup',
  14: 'SyncGroup',
  15: 'DescribeGroups',
  16: 'ListGroups',
  17: 'SaslHandshake',
  18: 'ApiVersions',
  19: 'CreateTopics',
  20: 'DeleteTopics',
  21: 'DeleteRecords',
  22: 'InitProducerId',
  24: 'AddPartitionsToTxn',
  25: 'AddOffsetsToTxn',
  26: 'EndTxn',
  27: 'WriteTxnMarkers',
  28: 'TxnOffsetCommit',
  32: 'DescribeConfigs',
  33: 'AlterConfigs',
  36: 'SaslAuthenticate',
  37: 'CreatePartitions',
  42: 'DeleteGroups',
  61: 'DescribeProducers',
  65: 'DescribeTransactions',
  66: 'ListTransactions',
  68: 'ConsumerGroupHeartbeat',
};
