import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '@headwater/testing';
import { Source } from '../source.testing.js';

let source: Source;
beforeEach(async () => {
  source = await Source.open();
});
afterEach(() => source.close());

describe('snapshots of tables', () => {
  it('C42 misses nothing and takes nothing back while rows are written before, at and after the start', async () => {
    await source.sql.query(
      `CREATE TABLE a (id int PRIMARY KEY, b text); INSERT INTO a SELECT g, '0' FROM generate_series(1, 300) g`,
    );
    await source.topics(['a'], 2);
    let writing = true;
    const writes = [0, 1, 2].map(async (lane) => {
      const session = await source.client();
      for (let n = 0; writing; n++)
        await session.query(`UPDATE a SET b = (b::int + 1)::text WHERE id = ${1 + lane * 100 + ((n * 37) % 100)}`);
    });
    await source.started(['a'], { snapshotChunkRows: 20 });
    await source.settled(['a']);
    const mark = (await source.seen('a')).length;
    await source.seenCount('a', mark + 200, 30_000);
    writing = false;
    await Promise.all(writes);
    await source.foldEqualsTable();
    const all = await source.seen('a');
    expect(new Set(all.map(({ tx, seq }) => `${tx} ${seq}`)).size).toBe(all.length);
    const faults: string[] = [];
    const last = new Map<string, number>();
    const streamed = new Map<string, number>();
    for (const { key, value, op } of all) {
      const version = Number((JSON.parse(value!) as { b: string }).b);
      if (version < (last.get(key!) ?? 0)) faults.push(`${key} went back to ${version}`);
      last.set(key!, version);
      if (op === 'r' && streamed.has(key!)) faults.push(`${key} seen in the stream and again in the snapshot`);
      if (op === 'r') continue;
      const before = streamed.get(key!);
      if (before !== undefined && version !== before + 1) faults.push(`${key}: ${version} after ${before}`);
      streamed.set(key!, version);
    }
    expect(faults).toEqual([]);
    expect([last.size, streamed.size > 0]).toEqual([300, true]);
  });

  it('C51 takes a table that is added while it is written to, without a gap, and holds up no other', async () => {
    for (const table of ['a', 'b'])
      await source.sql.query(
        `CREATE TABLE ${table} (id int PRIMARY KEY, b text); INSERT INTO ${table} SELECT g, 'x' FROM generate_series(1, 200) g`,
      );
    await source.topics(['a', 'b']);
    const first = await source.started(['a'], { snapshotChunkRows: 20 });
    // It has written before the table is published, and commits afterwards.
    const early = await source.client();
    await early.query(`BEGIN; UPDATE b SET b = 'early' WHERE id <= 50`);
    let writing = true;
    const writes = (async () => {
      for (let id = 1_000; writing; id++) await source.sql.query(`INSERT INTO b VALUES (${id}, 'y')`);
    })();
    await first.stop();
    const second = source.capture(['a', 'b'], { snapshotChunkRows: 20 });
    const started = second.start();
    await eventually(() => expect(second.status().state).toBe('snapshot'), { timeoutMs: 15_000 });
    const writer = await source.client();
    for (let id = 1_000; id < 1_005; id++) await writer.query(`INSERT INTO a VALUES (${id}, 'y')`);
    await eventually(async () => expect((await source.fold('a')).size).toBe(205));
    expect((await source.seen('b')).filter(({ op }) => op === 'r')).toEqual([]);
    expect(second.status().state).toBe('snapshot');
    await early.query('COMMIT');
    await started;
    writing = false;
    await writes;
    const { rows } = await source.sql.query<{ id: number; b: string }>('SELECT id, b FROM b');
    const wanted = new Map(rows.map((row) => [String(row.id), JSON.stringify(row)]));
    await eventually(async () => expect(await source.fold('b')).toEqual(wanted));
    const reads = (await source.seen('b')).filter(({ op }) => op === 'r').map(({ key }) => key);
    expect(new Set(reads).size).toBe(reads.length);
    expect((await source.seen('a')).filter(({ op }) => op === 'r')).toHaveLength(200);
  });

  it('C53 takes a partitioned table by its root, or leaf by leaf', async () => {
    await source.sql.query(
      `CREATE TABLE p (id int, region text, b text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
       CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('EU'); CREATE TABLE p_us PARTITION OF p FOR VALUES IN ('US');
       INSERT INTO p SELECT g, CASE g % 2 WHEN 0 THEN 'EU' ELSE 'US' END, 'x' FROM generate_series(1, 50) g`,
    );
    await source.topics(['p', 'p_eu', 'p_us']);
    await source.started(['p'], { snapshotChunkRows: 7 });
    const leaves = { name: `${source.name}_leaf`, snapshotChunkRows: 7 };
    await source.started(['p_eu', 'p_us'], leaves);
    await source.sql.query(`UPDATE p SET region = 'US' WHERE id = 2; INSERT INTO p VALUES (99, 'EU', 'y')`);
    await source.seenCount('p', 50 + 3);
    await source.settled(['p', 'p_eu', 'p_us']);
    const root = await source.seen('p');
    expect(root.slice(50).map(({ key, op }) => [key, op])).toEqual([
      ['["2","EU"]', 'd'],
      ['["2","US"]', 'c'],
      ['["99","EU"]', 'c'],
    ]);
    expect(
      root.every(({ record }) => record.headers.find(([name]) => name === 'hw_table')?.[1]?.toString() === 'public.p'),
    ).toBe(true);
    const counts = [await source.seenCount('p_eu', 27), await source.seenCount('p_us', 26)];
    expect(counts.map((seen) => seen.filter(({ op }) => op === 'r').length)).toEqual([25, 25]);
    const [eu, us] = [await source.fold('p_eu'), await source.fold('p_us')];
    expect([eu.size, us.size, eu.has('["2","EU"]'), us.has('["2","US"]'), eu.has('["99","EU"]')]).toEqual([
      25,
      26,
      false,
      true,
      true,
    ]);
  });

  it('C47 takes a table by declared key columns, rows of the same key too, and halts at a key that is NULL', async () => {
    await source.sql.query(
      `CREATE TABLE t (a int, b text, c int); ALTER TABLE t REPLICA IDENTITY FULL;
       INSERT INTO t SELECT g / 10, 'k', g FROM generate_series(0, 99) g;
       CREATE TABLE n (a int, b text); ALTER TABLE n REPLICA IDENTITY FULL; INSERT INTO n VALUES (1, 'x'), (NULL, 'y')`,
    );
    await source.topics(['t', 'n']);
    const declared = (table: string) => ({
      snapshotChunkRows: 7,
      tables: [{ table: `public.${table}`, topic: source.topic(table), keyColumns: ['a'] }],
    });
    await source.started([], declared('t'));
    await source.settled(['t']);
    const values = (await source.seen('t')).map(({ value }) => (JSON.parse(value!) as { c: number }).c);
    expect(values.toSorted((x, y) => x - y)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    await expect(source.started([], { ...declared('n'), name: `${source.name}_n` })).rejects.toMatchObject({
      code: 'CDC_KEY_NULL',
    });
    expect(await source.seen('n')).toEqual([]);
  });

  it('ends with `only`: drops slot and publication, and a second start finds nothing to do', async () => {
    await source.sql.query(
      `CREATE TABLE a (id int PRIMARY KEY, b text); INSERT INTO a SELECT g, 'x' FROM generate_series(1, 50) g`,
    );
    await source.topics(['a']);
    const capture = source.capture(['a'], { snapshot: 'only' });
    await capture.start();
    await capture.finished;
    await source.foldEqualsTable();
    const { rows } = await source.sql.query('SELECT pubname FROM pg_publication');
    expect([await source.slotFacts(), rows, (await source.lastPosition()).phase]).toEqual([undefined, [], 'done']);
    const again = source.capture(['a'], { snapshot: 'only' });
    await again.start();
    await again.finished;
    expect(await source.seen('a')).toHaveLength(50);
    expect(source.errors).toEqual([]);
  });

  it('ends a snapshot that was asked for and cannot be taken, and streams on', async () => {
    await source.sql.query('CREATE TABLE a (id int PRIMARY KEY, b text)');
    await source.topics(['a']);
    const capture = await source.started(['a']);
    await capture.snapshot({ tables: ['public.a'], where: 'no_such_column = 1' });
    await eventually(() => expect([capture.status().snapshots, source.errors.length]).toEqual([[], 1]));
    expect(source.errors).toMatchObject([{ code: '42703' }]);
    await expect(capture.snapshot({ tables: ['public.b'] })).rejects.toMatchObject({ code: 'CDC_TABLES_INVALID' });
    const forged = JSON.stringify([
      source.name,
      JSON.stringify({ signal: 'snapshot', id: 'x', tables: ['public.a'], where: 'true' }),
      '00',
    ]);
    await source.sql.query(`SELECT pg_logical_emit_message(false, 'headwater.signal', $1)`, [forged]);
    await source.sql.query(`INSERT INTO a VALUES (1, 'x')`);
    await source.seenCount('a', 1);
    expect([capture.status().snapshots, capture.status().ignoredMessages]).toEqual([[], 1]);
    expect(source.messages.join('\n')).toMatch(/the signal at [0-9A-F]+\/[0-9A-F]+ is refused: it is not signed/);
  });
});
