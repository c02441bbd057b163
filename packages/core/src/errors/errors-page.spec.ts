import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';

const root = process.cwd();
const CODE =
  /'((?:WIRING|CONTRACT|REJECTED|KEY_PARKED|HANDLER|PROCESS|APPLY|PROJECTION|CDC|CLI|KAFKA|LOG|CLOCK|STATE|SERVICES|RECORD_TOO|RECORD_INVALID|OUTBOX)_?[A-Z_]*)'/g;
/** Names of environment variables and of Kafka's own errors. */
const NOT_OURS = new Set(['KAFKA_BROKERS', 'KAFKA_SSL', 'KAFKA_STORAGE_ERROR', 'CDC_']);

function codesInSources(): Set<string> {
  const files = readdirSync(join(root, 'packages'))
    .flatMap((name) =>
      readdirSync(join(root, 'packages', name, 'src'), { recursive: true, encoding: 'utf8' }).map((file) =>
        join(root, 'packages', name, 'src', file),
      ),
    )
    .filter((file) => file.endsWith('.ts') && !/\.(spec|testing)\.ts$/.test(file));
  const codes = files.flatMap((file) => [...readFileSync(file, 'utf8').matchAll(CODE)].map((match) => match[1]!));
  return new Set(codes.filter((code) => !NOT_OURS.has(code) && !code.startsWith('KAFKA_SASL_')));
}

describe('docs/errors.md', () => {
  it('lists exactly the codes of the sources', () => {
    const page = readFileSync(join(root, 'docs/errors.md'), 'utf8');
    const listed = [...page.matchAll(/^\| `([A-Z_]+)`/gm)].map((match) => match[1]!);
    expect([...new Set(listed)].sort()).toEqual([...codesInSources()].sort());
  });
});
