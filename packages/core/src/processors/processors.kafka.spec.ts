import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Injectable, Module, type INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { IsInt, IsString } from 'class-validator';
import { kafkaLog } from '@headwater/kafka';
import { levelState } from '@headwater/state-level';
import { eventually, testDatabase, uniqueName, type TestDatabase } from '@headwater/testing';
import { Rejected } from '../errors/headwater.error.js';
import { headerText, textHeaders } from '../log/headers.js';
import type { Log, LogRecord, OutRecord } from '../log/log.js';
import { committedRecords } from '../log/log.testing.js';
import { Changelog, Event, Key } from '../model/model.js';
import { On, type Change } from '../model/on.js';
import { HeadwaterModule } from '../module/headwater.module.js';
import { HeadwaterRuntime } from '../module/headwater.runtime.js';
import { stateTopicOf, type DueTimer } from '../process/processor.js';
import { listParked } from '../process/parked-control.js';
import { processors } from './engine.js';
import { OnTimer, Processor, type TaskContext } from './processor.js';

const LATER = { timeoutMs: 40_000, intervalMs: 10 };
const run = uniqueName('shop').replaceAll('_', '-');

@Event({ topic: `${run}.orders` })
class Ordered {
  @Key()
  customer!: string;
  @IsInt()
  cents!: number;
}

/** Of the same topic, handled by nobody. */
@Event({ topic: `${run}.orders` })
class Viewed {
  @Key()
  customer!: string;
}

@Changelog({ topic: `${run}.customers` })
class Customer {
  @Key()
  id!: string;
  @IsString()
  fullName!: string;
}

@Changelog({ topic: `${run}.totals` })
class Total {
  @Key()
  customer!: string;
  @IsInt()
  cents!: number;
}

@Event({ topic: `${run}.mails` })
class Mailed {
  @Key()
  customer!: string;
  @IsString()
  text!: string;
}

@Event({ topic: `${run}.unknown` })
class Unknown {
  @Key()
  customer!: string;
}

const made = <T extends object>(type: new () => T, fields: T): T => Object.assign(new type(), fields);

@Injectable()
class Letters {
  readonly greeting = 'Dear';
}

@Processor({ name: `${run}-totals`, version: 1, tables: [Customer], standby: 'all' })
class Totals {
  constructor(private readonly letters: Letters) {}

  @On(Ordered)
  async ordered({ key, after }: Change<Ordered>, context: TaskContext) {
    const { cents } = context.state.get<{ cents: number }>(key) ?? { cents: 0 };
    const sum = { cents: cents + after!.cents };
    context.state.put(key, sum);
    context.timers.set(key, context.now);
    // Taken back with the rest of a record that fails.
    if (after!.cents < 0) throw new Rejected('below zero');
    if (after!.cents === 1) context.send(made(Unknown, { customer: key }));
    if (after!.cents === 2) context.state.put(key, { cents: 2n });
    await Promise.resolve();
    return made(Total, { customer: key, ...sum });
  }

  @OnTimer()
  due({ id }: DueTimer, { state, table, tombstone }: TaskContext) {
    const { cents } = state.get<{ cents: number }>(id)!;
    if (cents >= 1_000) {
      tombstone(Total, id);
      state.delete(id);
    }
    const name = table(Customer).get(id)?.fullName ?? 'customer';
    return [made(Mailed, { customer: id, text: `${this.letters.greeting} ${name}: ${cents}` })];
  }
}

const directory = mkdtempSync(join(tmpdir(), 'headwater-processors-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

let database: TestDatabase;
let log: Log;
let app: INestApplicationContext | undefined;

@Module({ providers: [Letters], exports: [Letters] })
class LettersModule {}

@Module({})
class ShopModule {}

/** The application, as an instance of this name: one that is stopped finds its states again. */
const shop = (instanceId: string) => ({
  module: ShopModule,
  imports: [
    HeadwaterModule.forRoot({
      databaseUrl: database.url,
      log: kafkaLog({ brokers: process.env['KAFKA_BROKERS']!.split(',') }),
      roles: ['processors'],
      partitions: 2,
      instanceId: `${run}-${instanceId}`,
      engines: [
        processors({ openStore: levelState({ directory: join(directory, instanceId) }), drainTimeoutMs: 5_000 }),
      ],
    }),
    HeadwaterModule.forFeature([Ordered, Viewed, Customer, Total, Mailed]),
    HeadwaterModule.forFeature([Totals], { imports: [LettersModule] }),
  ],
});

async function start(): Promise<HeadwaterRuntime> {
  // An error is the test's, not the end of its process.
  app = await NestFactory.createApplicationContext(shop('first'), { logger: false, abortOnError: false });
  return app.get(HeadwaterRuntime);
}

async function stop(): Promise<void> {
  await app?.close();
  app = undefined;
}

beforeEach(async () => {
  database = await testDatabase(process.env['DATABASE_URL']!);
  log = kafkaLog({ brokers: process.env['KAFKA_BROKERS']!.split(',') });
});

afterEach(async () => {
  await stop();
  await log.close();
  await database.drop();
});

function record(topic: string, key: string, value: object, headers: Record<string, string> = {}): OutRecord {
  return { topic, key: Buffer.from(key), value: Buffer.from(JSON.stringify(value)), headers: textHeaders(headers) };
}

const ordered = (customer: string, cents: unknown, headers: Record<string, string> = {}): OutRecord =>
  record(`${run}.orders`, customer, { customer, cents }, { ce_type: 'Ordered', ...headers });

async function write(...records: OutRecord[]): Promise<void> {
  const writer = log.writer({ transactionalId: uniqueName('shop') });
  await writer.fence();
  expect(await writer.transact(records)).toMatchObject({ outcome: 'committed' });
  await writer.close();
}

const text = ({ key, value }: LogRecord): string => `${key!.toString()} ${value?.toString() ?? 'gone'}`;
const texts = async (topic: string): Promise<string[]> => (await committedRecords(log, `${run}.${topic}`)).map(text);

describe('processors of an application', () => {
  it('keep state, set timers, read tables and publish messages, all once, over a restart too', async () => {
    await start();
    await stop();
    await write(
      record(`${run}.customers`, 'ann', { id: 'ann', full_name: 'Ann Lee' }),
      record(`${run}.orders`, 'ann', {}, { ce_type: 'Viewed' }),
      ordered('ann', 400, { ce_id: 'order-1', hw_correlation: 'visit-1' }),
    );
    const runtime = await start();
    await eventually(async () => expect(await texts('mails')).toHaveLength(1), LATER);
    expect(runtime.processor(`${run}-totals`).get('ann')).toMatchObject({
      at: 'owner',
      value: Buffer.from('{"cents":400}'),
    });
    await stop();
    await write(ordered('ann', 600), ordered('bob', 5));
    await start();
    await eventually(async () => expect(await texts('mails')).toHaveLength(3), LATER);
    await stop();
    expect(await texts('totals')).toEqual(
      expect.arrayContaining([
        'ann {"customer":"ann","cents":400}',
        'ann {"customer":"ann","cents":1000}',
        'ann gone',
        'bob {"customer":"bob","cents":5}',
      ]),
    );
    expect(await texts('totals')).toHaveLength(4);
    expect((await texts('mails')).sort()).toEqual([
      'ann {"customer":"ann","text":"Dear Ann Lee: 1000"}',
      'ann {"customer":"ann","text":"Dear Ann Lee: 400"}',
      'bob {"customer":"bob","text":"Dear customer: 5"}',
    ]);
    const [total] = await committedRecords(log, `${run}.totals`);
    const header = (name: string) => headerText(total!.headers, name);
    expect(['ce_type', 'ce_source', 'ce_subject', 'hw_correlation', 'hw_causation'].map(header)).toEqual([
      'Total',
      `processor/${run}-totals`,
      'ann',
      'visit-1',
      'order-1',
    ]);
    const messages = [
      ...(await committedRecords(log, `${run}.totals`)),
      ...(await committedRecords(log, `${run}.mails`)),
    ];
    const ids = messages.flatMap(({ headers, value }) => (value === null ? [] : [headerText(headers, 'ce_id')]));
    expect([new Set(ids).size, ids.includes(undefined)]).toEqual([6, false]);
  });

  it('park what breaks a contract, is rejected, or gives what cannot be kept or sent, and keep nothing of it', async () => {
    await start();
    const bad = { contract: 'text', rejected: -1, unknown: 1, state: 2 };
    for (const [customer, cents] of Object.entries(bad)) await write(ordered(customer, cents));
    await write(ordered('carl', 7));
    await eventually(async () => {
      expect((await texts('mails')).filter((of) => of.startsWith('carl'))).toHaveLength(1);
      const parked = await listParked(log, `${run}-totals`);
      expect(Object.fromEntries(parked.map((of) => [of.key, of.units[0]!.code]))).toEqual({
        contract: 'CONTRACT_VIOLATED',
        rejected: 'REJECTED',
        unknown: 'PROCESS_OUTPUT_UNKNOWN',
        state: 'PROCESS_STATE_INVALID',
      });
    }, LATER);
    await stop();
    const state = (await committedRecords(log, stateTopicOf(`${run}-totals`))).map(({ key }) => key!.toString());
    for (const customer of Object.keys(bad)) {
      expect(state).not.toContain(`s:${customer}`);
      expect(state).not.toContain(`t:${customer}`);
    }
    expect((await texts('totals')).filter((of) => Object.keys(bad).some((name) => of.startsWith(name)))).toEqual([]);
  });

  it('have the store and the standbys that the application asks for', async () => {
    const runtime = await start();
    const processor = runtime.processor(`${run}-totals`);
    await eventually(() => expect(processor.health().status).toBe('up'), LATER);
    expect(readdirSync(directory, { recursive: true }).join()).toContain(`${run}-totals`);
    const second = await NestFactory.createApplicationContext(shop('second'), { logger: false, abortOnError: false });
    try {
      const other = second.get(HeadwaterRuntime).processor(`${run}-totals`);
      await write(ordered('eve', 8));
      const known = () => [processor, other].map((of) => of.get('eve'));
      await eventually(() => {
        expect(known().map(({ value }) => value?.toString())).toEqual(['{"cents":8}', '{"cents":8}']);
        expect(
          known()
            .map(({ at }) => at)
            .sort(),
        ).toEqual(['owner', 'standby']);
      }, LATER);
    } finally {
      await second.close();
    }
  });

  it('can be found by name, paused and resumed', async () => {
    const runtime = await start();
    const name = `${run}-totals`;
    expect(() => runtime.processor('other')).toThrow(
      expect.objectContaining({ code: 'PROCESSOR_UNKNOWN', message: expect.stringContaining(`there are: ${name}`) }),
    );
    const processor = runtime.processor(name);
    await processor.pause();
    await write(ordered('dora', 3));
    await eventually(() => expect(Object.values(processor.health().facts['lag'] as object)).toContain(2), LATER);
    expect((await texts('totals')).filter((of) => of.startsWith('dora'))).toEqual([]);
    processor.resume();
    await eventually(
      async () => expect((await texts('totals')).filter((of) => of.startsWith('dora'))).toHaveLength(1),
      LATER,
    );
  });
});
