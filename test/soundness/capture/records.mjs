/** Gives every record of a topic that is committed now to `each`, in order per partition. */
export async function readAll(log, topic, each) {
  const reader = log.reader();
  try {
    for (const { partition, start, lastStable } of await log.admin.offsets(topic)) {
      reader.seek(topic, partition, start);
      for (let next = start; next < lastStable;) {
        for (const batch of await reader.poll({ maxWaitMs: 500 })) {
          next = batch.nextOffset;
          for (const record of batch.records) if (record.offset < lastStable) each(record);
        }
      }
      reader.drop(topic, partition);
    }
  } finally {
    await reader.close();
  }
}
