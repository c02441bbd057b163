// Capture: one source transaction of 5,000,000 rows as one log transaction; rows/s and peak memory.
import { openSource, PARTITIONS, ROW } from './capture/source.mjs';

const ROWS = Number(process.env.BENCH_ROWS ?? 5_000_000);

export default async function run(services) {
  const source = await openSource(services);
  try {
    await source.table('huge');
    services.log(`writing ${ROWS} rows in one transaction`);
    await source.client.query(`INSERT INTO huge SELECT ${ROW} FROM generate_series(1, ${ROWS}) i`);
    // The log transaction is open for as long as the source transaction streams.
    const ours = await source.drain('huge', ROWS, { transactionTimeoutMs: 900_000 });
    return { setup: { rows: ROWS, transactions: 1, columns: 7, exactlyOnce: true, partitions: PARTITIONS }, ours };
  } finally {
    await source.close();
  }
}
