// npm run conformance [-- --json]: each case of docs/conformance/*.md, the tests that cite it, and whether they passed.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The cases of one table: `| id | case | must hold | how to provoke |`. */
export function readCases(markdown) {
  return tableRows(markdown)
    .filter(([id]) => /^[A-Z]\d+$/.test(id))
    .map(([id, name, ...rest]) => ({ id, name, pure: /^\*\*pure\*\*/i.test(rest.at(-1) ?? '') }));
}

/** Joins cases with jest's results. A case that is not pure counts only tests that ran on real servers. */
export function conformance(cases, results, outOfScope = new Map()) {
  const cited = new Map();
  for (const suite of results.testResults) {
    const real = /\.(pg|kafka)\.spec\.ts$/.test(suite.name) || suite.name.startsWith(join(root, 'test'));
    for (const test of suite.assertionResults) {
      for (const id of citedIds(test.title)) {
        if (!cited.has(id)) cited.set(id, []);
        cited.get(id).push({ status: test.status, real });
      }
    }
  }
  return cases.map(({ id, name, pure }) => {
    const counted = (cited.get(id) ?? []).filter(
      (test) => (test.real || pure) && ['passed', 'failed'].includes(test.status),
    );
    const status = outOfScope.has(id)
      ? 'out of scope'
      : counted.length === 0
        ? 'missing'
        : counted.every((test) => test.status === 'passed')
          ? 'passed'
          : 'failed';
    return { id, name, tests: counted.length, status, ...(outOfScope.has(id) && { reason: outOfScope.get(id) }) };
  });
}

/** `C66 C67 keeps …` cites both. */
export function citedIds(title) {
  return (/^(?:[A-Z]\d+[\s,:]+)+/.exec(title)?.[0] ?? '').match(/[A-Z]\d+/g) ?? [];
}

function tableRows(markdown) {
  return markdown
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

function main() {
  const directory = join(root, 'docs', 'conformance');
  const files = existsSync(directory) ? readdirSync(directory).filter((name) => name.endsWith('.md')) : [];
  const cases = files.sort().flatMap((name) => readCases(readFileSync(join(directory, name), 'utf8')));
  if (cases.length === 0) return fail('No cases in docs/conformance/*.md.');
  const resultsFile = join(root, '.headwater', 'test-results.json');
  if (!existsSync(resultsFile)) return fail('No .headwater/test-results.json. Run `npm test` first.');
  const scopeFile = join(root, 'docs', 'conformance.md');
  const outOfScope = new Map(
    existsSync(scopeFile)
      ? tableRows(readFileSync(scopeFile, 'utf8'))
          .filter(([id, reason]) => /^[A-Z]\d+$/.test(id) && reason)
          .map(([id, reason]) => [id, reason])
      : [],
  );
  const rows = conformance(cases, JSON.parse(readFileSync(resultsFile, 'utf8')), outOfScope);
  const totals = { passed: 0, failed: 0, missing: 0, 'out of scope': 0 };
  for (const row of rows) totals[row.status] += 1;
  if (process.argv.includes('--json')) console.log(JSON.stringify({ totals, cases: rows }));
  else {
    console.log('id     tests  status        case');
    for (const { id, tests, status, name } of rows) {
      console.log(`${id.padEnd(6)} ${String(tests).padStart(5)}  ${status.padEnd(12)}  ${name}`);
    }
    const counts = Object.entries(totals).map(([status, count]) => `${count} ${status}`);
    console.log(`${rows.length} cases: ${counts.join(', ')}`);
  }
  return totals.failed > 0 ? 1 : 0;
}

function fail(message) {
  console.error(message);
  return 2;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.exitCode = main();
