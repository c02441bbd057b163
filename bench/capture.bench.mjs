// Capture: rows/s, CPU and memory for a backlog of 1,000,000 rows, 1 and 1,000 per transaction, exactly once.
import { openSource, PARTITIONS } from './capture/source.mjs';

const ROWS = Number(process.env.BENCH_ROWS ?? 1_000_000);

export default async function run(services) {
  const source = await openSource(services);
  try {
    const figures = {};
    for (const [name, per, suffix] of [
      ['singles', 1, ''],
      ['thousands', 1_000, 'By1000'],
    ]) {
      await source.table(name);
      await source.fill(name, ROWS, per);
      for (const [figure, value] of Object.entries(await source.drain(name, ROWS))) figures[figure + suffix] = value;
    }
    return {
      setup: { rows: ROWS, rowsPerTransaction: [1, 1_000], columns: 7, exactlyOnce: true, partitions: PARTITIONS },
      ours: figures,
    };
  } finally {
    await source.close();
  }
}
