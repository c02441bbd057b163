// Writes transactions at a steady rate from a process of its own, and tells how many were committed. With synchronous commits, as an
// application does: others reach capture only when the WAL writer has flushed them, up to 200 ms later.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [root, { databaseUrl, table, tps, rows, seconds }] = [process.argv[2], JSON.parse(process.argv[3])];
const { Client } = createRequire(join(root, 'packages/core/package.json'))('pg');

const sessions = await Promise.all(
  Array.from({ length: 8 }, async () => {
    const client = new Client({ connectionString: databaseUrl });
    await client.connect();
    return client;
  }),
);
const insert = {
  name: 'insert',
  text: `INSERT INTO ${table} SELECT i, md5(i::text)::uuid, i / 100.0, 'open', repeat('x', 120), now(), i % 7 FROM generate_series($1::int, $2::int) i`,
};
const startedAt = performance.now();
let begun = 0;
let committed = 0;
await Promise.all(
  sessions.map(async (session) => {
    for (;;) {
      const n = begun++;
      if (n >= tps * seconds) return;
      const due = startedAt + (n / tps) * 1_000 - performance.now();
      if (due > 0) await new Promise((resolve) => setTimeout(resolve, due));
      await session.query({ ...insert, values: [n * rows + 1, (n + 1) * rows] });
      committed += 1;
    }
  }),
);
await Promise.all(sessions.map((session) => session.end()));
process.send(committed);
