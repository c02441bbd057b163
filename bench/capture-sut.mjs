// The capture as a program to be measured: what the measurer tells through the environment becomes a config file, then this process is
// `headwater capture`. PGHOST…, KAFKA_BOOTSTRAP, CDC_TABLES, CDC_PREFIX, CDC_SLOT, CDC_PUBLICATION, CDC_STATE_DIR, CDC_TOPIC_TEMPLATE; the topics exist.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const { env } = process;
const template = env.CDC_TOPIC_TEMPLATE ?? '{prefix}.{schema}.{table}';
const tables = env.CDC_TABLES.split(',').map((table) => {
  const [schema, name] = table.split('.');
  const topic = template.replace('{prefix}', env.CDC_PREFIX).replace('{schema}', schema).replace('{table}', name);
  return { table, topic };
});
const { PGHOST: host, PGPORT: port, PGUSER: user, PGPASSWORD: password, PGDATABASE: database } = env;
const config = {
  name: env.CDC_PREFIX.replaceAll(/[^A-Za-z0-9_]/g, '_'),
  postgres: { host, port: Number(port), user, database, ...(password ? { password } : {}) },
  kafka: { brokers: env.KAFKA_BOOTSTRAP.split(','), ...(env.COMPRESSION ? { compression: env.COMPRESSION } : {}) },
  tables,
  topics: { manage: false },
  slot: env.CDC_SLOT,
  publication: env.CDC_PUBLICATION,
};
const file = join(env.CDC_STATE_DIR, 'capture.json');
writeFileSync(file, JSON.stringify(config, null, 2), { mode: 0o600 });
process.argv = [...process.argv.slice(0, 2), 'capture', '--config', file, '--stats'];
await import('../packages/cli/bin/headwater.mjs');
