// Capture: one source transaction of 5,000,000 rows as one log transaction; rows/s and peak memory. --live: captured as it is written, and how long after its COMMIT all is readable; --streaming: the same, streamed while it is open.
import { openSource, PARTITIONS, ROW } from './capture/source.mjs';

const ROWS = Number(process.env.BENCH_ROWS ?? 5_000_000);
const streaming = process.argv.includes('--streaming') ? 'on' : 'off';
const isLive = streaming === 'on' || process.argv.includes('--live');
const WRITE = `INSERT INTO huge SELECT ${ROW} FROM generate_series(1, ${ROWS}) i`;
/** The log transaction is open for as long as the source transaction is handed on. */
const OPTIONS = { transactionTimeoutMs: 900_000, streaming };

export default async function run(services) {
  const source = await openSource(services);
  try {
    await source.table('huge');
    services.log(`writing ${ROWS} rows in one transaction`);
    const ours = isLive ? await live(source) : await backlog(source);
    const setup = { rows: ROWS, transactions: 1, columns: 7, exactlyOnce: true, partitions: PARTITIONS };
    return { setup: { ...setup, live: isLive, streaming }, ours };
  } finally {
    await source.close();
  }
}

async function backlog(source) {
  await source.client.query(WRITE);
  return source.drain('huge', ROWS, OPTIONS);
}

async function live(source) {
  const capture = source.capture('huge', OPTIONS);
  await capture.started;
  const [seconds, figures] = await capture.measure(async () => {
    await source.client.query('BEGIN');
    await source.client.query(WRITE);
    const committedAt = performance.now();
    // Of the wait for the server's disk nothing is measured: synchronous_commit is off.
    await source.client.query('COMMIT');
    while ((await readable(source)) < ROWS) await new Promise((resolve) => setTimeout(resolve, 20));
    return (performance.now() - committedAt) / 1_000;
  });
  await capture.stop();
  return {
    secondsFromCommit: Number(seconds.toFixed(1)),
    cpuMicrosPerRow: Number((figures.cpuMicros / ROWS).toFixed(2)),
    peakRssMb: figures.peakRssMb,
  };
}

async function readable({ kafka, topicOf }) {
  const bounds = await kafka.admin.offsets(topicOf('huge'));
  return bounds.reduce((sum, { start, lastStable }) => sum + lastStable - start, 0);
}
