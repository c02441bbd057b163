import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { kafkaLog } from '@headwater/kafka';
import { eventually, faultProxy, settledOffsets } from '@headwater/testing';
import { formatLsn } from '../../../cdc/src/lsn.js';
import { readPosition } from '../../../cdc/src/position.js';
import { brokers, Source } from '../../../cdc/src/source.testing.js';
import { Configs, Headwater, headwater } from '../cli.testing.js';
import { captureSettings } from './capture-config.js';
import { runCaptures } from './capture-run.js';
import type { CaptureStats } from './capture-stats.js';

const PRODUCE = 0;
const END_TXN = 26;

let source: Source;
let configs: Configs;
const started: Headwater[] = [];

beforeAll(() => {
  configs = new Configs();
});
beforeEach(async () => {
  source = await Source.open();
  await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text); CREATE TABLE b (id int PRIMARY KEY, b text)');
});
afterEach(async () => {
  await Promise.all(started.splice(0).map((one) => one.kill('SIGKILL')));
  await source.close();
});
afterAll(() => configs.remove());

function config(more: object = {}): string {
  return configs.write({
    name: source.name,
    postgres: { connectionString: source.url },
    kafka: { brokers },
    tables: ['public.a'],
    topics: { prefix: source.name, partitions: 2, replicationFactor: 1 },
    ...more,
  });
}

function run(...args: string[]): Headwater {
  const one = new Headwater(args);
  started.push(one);
  return one;
}

const topic = (table: string) => `${source.name}.public.${table}`;

async function streams(one: Headwater): Promise<void> {
  await eventually(() => expect([one.lines<CaptureStats>().at(-1)?.state, one.err]).toEqual(['streaming', one.err]));
}

describe('headwater capture', () => {
  it('C103 stops on SIGTERM under load: what was in flight is committed and acknowledged, and the next start repeats nothing', async () => {
    const file = config();
    const first = run('capture', '--config', file, '--stats');
    await streams(first);
    const [writer, loading] = [await source.client(), new AbortController()];
    let written = 0;
    const load = (async () => {
      while (!loading.signal.aborted) {
        await writer.query(`INSERT INTO a SELECT g, 'x' FROM generate_series($1::int, $1::int + 9) g`, [written]);
        written += 10;
      }
    })();
    await source.seenIn(topic('a'), 100);
    const asked = performance.now();
    const ended = await first.kill('SIGTERM');
    expect(ended).toMatchObject({ code: 0 });
    expect(performance.now() - asked).toBeLessThan(5_000);
    loading.abort();
    await load;
    await source.slotFree();
    await settledOffsets(source.log, source.positionTopic);
    const published = (await source.seenIn(topic('a'), 100)).length;
    const position = await source.lastPosition();
    expect((await source.slotFacts())!.confirmed).toBe(formatLsn(position.endLsn));
    const second = run('capture', '--config', file, '--stats');
    const seen = await source.seenIn(topic('a'), written);
    expect(second.err).not.toMatch(/waiting/);
    expect(published).toBeLessThanOrEqual(written);
    expect(new Set(seen.map(({ tx, seq }) => `${tx}/${seq}`)).size).toBe(seen.length);
    expect(seen.map(({ key }) => Number(key)).toSorted((x, y) => x - y)).toEqual(
      Array.from({ length: written }, (_, i) => i),
    );
    expect(await second.kill('SIGINT')).toMatchObject({ code: 0 });
  });

  it('C103 commits and acknowledges a batch whose commit is in flight when it is asked to stop', async () => {
    const [host, port] = brokers[0]!.split(':');
    const proxy = await faultProxy({ target: { host: host!, port: Number(port) }, protocol: 'kafka' });
    const log = kafkaLog({ brokers, connect: proxy.connect });
    const stop = new AbortController();
    try {
      const file = {
        name: source.name,
        postgres: { connectionString: source.url },
        kafka: { brokers },
        tables: ['public.a'],
      };
      const captures = captureSettings({ path: 'file', file, kafka: () => undefined });
      const lines: string[] = [];
      const logger = { info: (line: string) => lines.push(line), warn: (line: string) => lines.push(line) };
      const running = runCaptures({ captures, log, logger, signal: stop.signal });
      await eventually(() => expect(lines).toEqual([expect.stringContaining('streaming from')]));
      let produced = false;
      proxy.decide = ({ apiKey, frame }) => {
        // The commit of the row, not that of an idle position before it.
        produced ||= apiKey === PRODUCE && frame.includes(topic('a'));
        return produced && apiKey === END_TXN ? { at: 'request', act: 'hold' } : undefined;
      };
      await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
      await proxy.strikes(1);
      stop.abort();
      proxy.decide = () => undefined;
      await proxy.release();
      await running;
      expect((await source.slotFacts())!.pid).toBeNull();
      const position = await source.lastPosition();
      expect((await source.slotFacts())!.confirmed).toBe(formatLsn(position.endLsn));
      expect(await source.seenIn(topic('a'), 1)).toHaveLength(1);
    } finally {
      stop.abort();
      await log.close();
      await proxy.close();
    }
  });

  it('tells once a second how it is, as JSON on stdout and nothing else', async () => {
    await source.sql.query(`INSERT INTO a SELECT g, 'x' FROM generate_series(1, 100) g`);
    const one = run('capture', '--config', config(), '--stats', '--json');
    await streams(one);
    await eventually(() => expect(one.lines().length).toBeGreaterThan(2));
    const last = one.lines<CaptureStats>().at(-1)!;
    expect(last).toEqual({
      rows: 100,
      rowsPerSecond: expect.any(Number),
      lagBytes: expect.any(Number),
      lagMs: expect.any(Number),
      rssBytes: expect.any(Number),
      state: 'streaming',
    });
    const asked = performance.now();
    const { code, out, err } = await one.kill('SIGTERM');
    expect(code).toBe(0);
    // With nothing in flight there is nothing to wait for, time-outs of the drain included.
    expect(performance.now() - asked).toBeLessThan(3_000);
    expect(JSON.parse(out.split('\n').at(-1)!)).toMatchObject({ state: 'stopped', rows: 100 });
    for (const line of err.split('\n')) expect(JSON.parse(line)).toMatchObject({ level: expect.any(String) });
  });

  it('C105 leaves nothing of a dropped capture but its records, says so the second time, and refuses while it runs', async () => {
    const about = { schemasTopic: `${source.name}.schemas`, transactionsTopic: `${source.name}.transactions` };
    const file = config(about);
    const one = run('capture', '--config', file, '--stats');
    await streams(one);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenIn(topic('a'), 1);
    const { pid } = (await source.slotFacts())!;
    expect(await headwater('drop', '--config', file)).toMatchObject({
      code: 1,
      err: expect.stringMatching(new RegExp(`CDC_SLOT_BUSY.*pid ${pid}.*Nothing was removed. Stop its capture`)),
    });
    await one.kill('SIGTERM');
    const remains = async () => [
      (await source.slotFacts()) !== undefined,
      (await source.sql.query('SELECT 1 FROM pg_publication')).rowCount,
      (await source.log.admin.partitionCounts([source.positionTopic, ...Object.values(about)])).size,
    ];
    expect(await remains()).toEqual([true, 1, 3]);
    const dry = await headwater('drop', '--config', file, '--dry-run', '--json');
    const all = ['slot', 'publication', 'position', 'schemas', 'transactions'];
    expect(JSON.parse(dry.out)).toMatchObject({ capture: source.name, would: all });
    expect(await remains()).toEqual([true, 1, 3]);
    const first = await headwater('drop', '--config', file);
    expect(first).toMatchObject({
      code: 0,
      out: expect.stringMatching(
        /removed slot, publication, position, schemas, transactions\. The topics of its tables are kept/,
      ),
    });
    expect(await remains()).toEqual([false, 0, 0]);
    expect(await source.seenIn(topic('a'), 1)).toHaveLength(1);
    const second = await headwater('drop', '--config', file, '--yes');
    expect(second).toMatchObject({
      code: 0,
      out: expect.stringMatching(/there is no slot, publication or position any more/),
    });
  });

  it('C105 takes back only its own position where captures share a topic', async () => {
    const shared = `${source.name}.positions`;
    const entry = (table: string) => ({
      name: `${source.name}_${table}`,
      tables: [`public.${table}`],
      topics: { prefix: `${source.name}.${table}`, partitions: 1 },
      positionTopic: shared,
    });
    const schemasTopic = `${source.name}.schemas`;
    const common = { name: undefined, tables: undefined, topics: undefined, schemasTopic };
    const both = run('capture', '--config', config({ ...common, captures: [entry('a'), entry('b')] }), '--stats');
    await eventually(() => {
      const states = both
        .lines<CaptureStats>()
        .slice(-2)
        .map(({ state }) => state);
      expect([states, both.err]).toEqual([['streaming', 'streaming'], both.err]);
    });
    await both.kill('SIGTERM');
    expect((await headwater('drop', '--config', config({ ...common, captures: [entry('a')] }))).code).toBe(0);
    expect(await readPosition(source.log, shared, `${source.name}_a`)).toBeUndefined();
    expect(await readPosition(source.log, shared, `${source.name}_b`)).toMatchObject({ phase: 'streaming' });
    const versions = new Map((await source.seenIn(schemasTopic, 3)).map(({ key, value }) => [key, value]));
    expect([versions.get('public.a'), versions.get('public.b')]).toEqual([undefined, expect.any(String)]);
    const again = run('capture', '--config', config({ ...common, captures: [entry('b')] }), '--stats');
    await streams(again);
    await source.sql.query(`INSERT INTO b VALUES (1, 'x')`);
    expect(await source.seenIn(`${source.name}.b.public.b`, 1)).toHaveLength(1);
  });

  it('runs several captures in one process, each told by its name', async () => {
    const entry = (table: string) => ({
      name: `${source.name}_${table}`,
      tables: [`public.${table}`],
      topics: { prefix: `${source.name}.${table}`, partitions: 1 },
    });
    const one = run(
      'capture',
      '--config',
      config({ captures: [entry('a'), entry('b')], name: undefined, tables: undefined, topics: undefined }),
      '--stats',
    );
    await eventually(() => {
      const states = new Map(one.lines<CaptureStats>().map((line) => [line.capture, line.state]));
      expect([states, one.err]).toEqual([
        new Map(['a', 'b'].map((of) => [`${source.name}_${of}`, 'streaming'])),
        one.err,
      ]);
    });
    await source.sql.query(`INSERT INTO a VALUES (1, 'x'); INSERT INTO b VALUES (2, 'y')`);
    expect((await source.seenIn(`${source.name}.a.public.a`, 1))[0]!.value).toBe('{"id":1,"b":"x"}');
    expect((await source.seenIn(`${source.name}.b.public.b`, 1))[0]!.value).toBe('{"id":2,"b":"y"}');
    expect(await one.kill('SIGTERM')).toMatchObject({ code: 0 });
  });

  it('ends by itself with 0 after a snapshot only, with 1, code, cause and remedy when it halts', async () => {
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    const only = run('capture', '--config', config({ snapshot: 'only' }));
    expect(await only.ended).toMatchObject({ code: 0, out: '' });
    expect(await source.seenIn(topic('a'), 1)).toHaveLength(1);
    const halted = await headwater(
      'capture',
      '--config',
      config({ tables: ['public.nothing'], name: `${source.name}_x` }),
    );
    expect(halted).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringMatching(/CDC_TABLES_INVALID.*[^]*no such table. Create it/),
    });
  });

  it('loads no Nest', async () => {
    const trace = `data:text/javascript,${encodeURIComponent(
      `import { register } from 'node:module';
       register('data:text/javascript,' + encodeURIComponent('export async function resolve(s, c, n) { const r = await n(s, c); if (r.url.includes("@nestjs")) console.error("LOADED " + r.url); return r; }'));`,
    )}`;
    const one = new Headwater(['capture', '--config', config(), '--stats'], {}, ['--import', trace]);
    started.push(one);
    await streams(one);
    expect(one.err).not.toContain('LOADED');
  });

  it('lists every mistake of a file with its remedy and exits with 2', async () => {
    const file = configs.write({
      nmae: 'x',
      postgres: { connectionString: 'mysql://x' },
      kafka: { brokers: ['nowhere'], ssl: { caFile: '/does/not/exist' }, sasl: { mechanism: 'md5', username: 'u' } },
      tables: ['orders', { table: 'public.a', topic: 'no/topic' }],
      topics: { partitions: 0 },
      snapshot: 'sometimes',
      outbox: 'yes',
    });
    const { code, out, err } = await headwater('capture', '--config', file);
    expect([code, out]).toEqual([2, '']);
    const mistakes = err.split('\n').slice(0, -1);
    expect(mistakes.map((line) => line.slice(file.length + 2).split(':')[0])).toEqual([
      'nmae',
      'name',
      'postgres.connectionString',
      'tables[0]',
      'tables[1].topic',
      'topics.partitions',
      'snapshot',
      'outbox',
      'kafka.brokers[0]',
      'kafka.ssl.caFile',
      'kafka.sasl.mechanism',
      'kafka.sasl.password',
    ]);
    for (const mistake of mistakes) expect(mistake).toMatch(/\. ?(Write|Known here|Correct|Give) ?.*/);
  });

  it('refuses a table in the topic that another capture of the file keeps for itself', async () => {
    const file = configs.write({
      postgres: { connectionString: source.url },
      kafka: { brokers },
      captures: [
        { name: 'one', tables: [{ table: 'public.a', topic: 'headwater.cdc.two.position' }] },
        { name: 'two', tables: ['public.b'], schemasTopic: 'about', transactionsTopic: 'about' },
      ],
    });
    const { code, err } = await headwater('capture', '--config', file);
    expect(code).toBe(2);
    expect(err).toMatch(
      /tables: public\.a: its topic headwater\.cdc\.two\.position holds the position of capture two\. Give/,
    );
    expect(err).toMatch(/topics: topic about would hold the versions of tables of capture two and the transactions/);
  });
});
