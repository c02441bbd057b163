import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Injectable, Module, type INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { IsInt, IsString } from 'class-validator';
import { capture } from '@headwater/cdc';
import {
  Changelog,
  Command,
  Database,
  Event,
  Key,
  Rejected,
  headerText,
  textHeaders,
  type Log,
  type OutRecord,
  type Role,
} from '@headwater/core';
import { HeadwaterModule } from '@headwater/core/nest';
import { kafkaLog } from '@headwater/kafka';
import { CommandHandler, Pivot, Saga, Step, Undo, sagas, type SagaRow, type SqlContext } from '@headwater/sagas';
import { levelState } from '@headwater/state-level';
import { eventually, testDatabase, uniqueName, type TestDatabase } from '@headwater/testing';
import { readAll } from './bank.js';

const name = uniqueName('trip').replaceAll('_', '-');
const startTopic = `${name}.trips`;
const hastyTopic = `${name}.hasty`;
const commandTopic = `${name}.commands`;

class Details {
  @IsString() what!: string;

  constructor(details: { what: string; tripId: string }) {
    Object.assign(this, details);
  }
}

@Event({ topic: startTopic, type: 'TripAsked' })
class TripAsked extends Details {
  @Key() @IsString() declare tripId: string;
}

@Event({ topic: hastyTopic, type: 'HastyTripAsked' })
class HastyTripAsked extends Details {
  @Key() @IsString() declare tripId: string;
}

@Command({ topic: commandTopic, type: 'BookHotel' })
class BookHotel extends Details {
  @Key() @IsString() declare tripId: string;
}

@Command({ topic: commandTopic, type: 'CancelHotel' })
class CancelHotel extends Details {
  @Key() @IsString() declare tripId: string;
}

@Command({ topic: commandTopic, type: 'BookCar' })
class BookCar extends Details {
  @Key() @IsString() declare tripId: string;
}

@Command({ topic: commandTopic, type: 'CancelCar' })
class CancelCar extends Details {
  @Key() @IsString() declare tripId: string;
}

@Command({ topic: commandTopic, type: 'BookFlight' })
class BookFlight extends Details {
  @Key() @IsString() declare tripId: string;
}

@Command({ topic: commandTopic, type: 'CancelFlight' })
class CancelFlight extends Details {
  @Key() @IsString() declare tripId: string;
}

@Command({ topic: commandTopic, type: 'Pay' })
class Pay extends Details {
  @Key() @IsString() declare tripId: string;
}

@Changelog({ topic: `${name}.effects`, table: 'public.effects' })
class Effect {
  @Key() @IsInt() id!: number;
  @IsString() tripId!: string;
  @IsString() done!: string;
}

@Saga({ name, startedBy: TripAsked, version: 1 })
class TripSaga {
  @Step(BookHotel) hotel(trip: TripAsked) {
    return new BookHotel(trip);
  }

  @Undo('hotel', CancelHotel) cancelHotel(trip: TripAsked) {
    return new CancelHotel(trip);
  }

  @Step(BookCar) car(trip: TripAsked) {
    return new BookCar(trip);
  }

  @Undo('car', CancelCar) cancelCar(trip: TripAsked) {
    return new CancelCar(trip);
  }

  @Step(BookFlight) flight(trip: TripAsked) {
    return new BookFlight(trip);
  }

  @Undo('flight', CancelFlight) cancelFlight(trip: TripAsked) {
    return new CancelFlight(trip);
  }

  @Pivot(Pay) pay(trip: TripAsked) {
    return new Pay(trip);
  }
}

const hastyName = `${name}-hasty`;

@Saga({ name: hastyName, startedBy: HastyTripAsked, deadline: '2s', version: 1 })
class HastyTripSaga {
  @Step(BookHotel) hotel(trip: HastyTripAsked) {
    return new BookHotel(trip);
  }

  @Undo('hotel', CancelHotel) cancelHotel(trip: HastyTripAsked) {
    return new CancelHotel(trip);
  }

  @Pivot(Pay) pay(trip: HastyTripAsked) {
    return new Pay(trip);
  }
}

/** Writes down what it does; a flight that is sold out is refused. */
@Injectable()
class Agency {
  @CommandHandler(BookHotel) bookHotel(command: BookHotel, context: SqlContext) {
    return this.#note('hotel', command, context);
  }

  @CommandHandler(CancelHotel) cancelHotel(command: CancelHotel, context: SqlContext) {
    return this.#note('no hotel', command, context);
  }

  @CommandHandler(BookCar) bookCar(command: BookCar, context: SqlContext) {
    return this.#note('car', command, context);
  }

  @CommandHandler(CancelCar) cancelCar(command: CancelCar, context: SqlContext) {
    return this.#note('no car', command, context);
  }

  @CommandHandler(BookFlight) async bookFlight(command: BookFlight, context: SqlContext) {
    await this.#note('flight', command, context);
    if (command.what === 'sold-out') throw new Rejected('sold-out');
  }

  @CommandHandler(CancelFlight) cancelFlight(command: CancelFlight, context: SqlContext) {
    return this.#note('no flight', command, context);
  }

  @CommandHandler(Pay) pay(command: Pay, context: SqlContext) {
    return this.#note('paid', command, context);
  }

  async #note(done: string, { tripId }: { tripId: string }, { sql }: SqlContext): Promise<void> {
    await sql.query('INSERT INTO effects (trip_id, done) VALUES ($1, $2)', [tripId, done]);
  }
}

@Module({})
class TravelModule {}

let database: TestDatabase;
let sql: Database;
let log: Log;
let app: INestApplicationContext | undefined;
const brokers = process.env['KAFKA_BROKERS']!.split(',');
const captureName = uniqueName('trips');
/** The instances of the sagas outlive the application. */
const states = mkdtempSync(join(tmpdir(), 'headwater-trips-'));

/** The whole application, or all but capture: then the replies of the participants stay in Postgres. */
async function start(...roles: Role[]): Promise<void> {
  app = await NestFactory.createApplicationContext(
    {
      module: TravelModule,
      imports: [
        HeadwaterModule.forRoot({
          databaseUrl: database.url,
          log: kafkaLog({ brokers }),
          roles,
          instanceId: 'travel',
          engines: [
            capture({ name: captureName, connectionString: database.url }),
            sagas({ openStore: levelState({ directory: states }) }),
          ],
        }),
        HeadwaterModule.forFeature([TripAsked, HastyTripAsked, BookHotel, CancelHotel, BookCar, CancelCar, Effect]),
        HeadwaterModule.forFeature([BookFlight, CancelFlight, Pay, TripSaga, HastyTripSaga, Agency]),
      ],
    },
    // An error is the test's, not the end of its process.
    { logger: false, abortOnError: false },
  );
}

async function stop(): Promise<void> {
  await app?.close();
  app = undefined;
}

beforeAll(async () => {
  database = await testDatabase(process.env['DATABASE_URL']!);
  sql = new Database(database.url, { maxConnections: 1 });
  await sql.query('CREATE TABLE effects (id serial PRIMARY KEY, trip_id text NOT NULL, done text NOT NULL)');
  log = kafkaLog({ brokers });
});

afterEach(stop);

afterAll(async () => {
  await log?.close();
  await sql?.close();
  await database?.drop();
  rmSync(states, { recursive: true, force: true });
});

async function write(records: readonly OutRecord[]): Promise<void> {
  const writer = log.writer({ transactionalId: uniqueName('copies') });
  await writer.fence();
  // One transaction each, as redelivery would bring them.
  for (const record of records) expect(await writer.transact([record])).toMatchObject({ outcome: 'committed' });
  await writer.close();
}

function message(
  topic: string,
  type: string,
  key: string,
  value: object,
  headers: Record<string, string> = {},
): OutRecord {
  return {
    topic,
    key: Buffer.from(key),
    value: Buffer.from(JSON.stringify(value)),
    headers: textHeaders({ ce_id: randomUUID(), ce_type: type, ce_source: 'test', ...headers }),
  };
}

const tripAsked = (tripId: string, what = 'beach') => message(startTopic, 'TripAsked', tripId, { tripId, what });
const hastyAsked = (tripId: string) => message(hastyTopic, 'HastyTripAsked', tripId, { tripId, what: 'beach' });
const copies = (record: OutRecord) => Array.from({ length: 10 }, () => record);

async function effects(tripId: string): Promise<string[]> {
  const { rows } = await sql.query<{ done: string }>('SELECT done FROM effects WHERE trip_id = $1 ORDER BY id', [
    tripId,
  ]);
  return rows.map((row) => row.done);
}

async function sagaRow(tripId: string): Promise<SagaRow> {
  const { rows } = await sql.query<SagaRow>('SELECT * FROM headwater.sagas WHERE id = $1', [tripId]);
  return rows[0]!;
}

const reaches = (tripId: string, status: string) =>
  eventually(
    async () => {
      const row = await sagaRow(tripId);
      expect(row).toMatchObject({ status });
      return row;
    },
    { timeoutMs: 20_000 },
  );

/** What the saga went through, one entry per transition. */
async function transitions(saga: string, tripId: string): Promise<string[]> {
  const records = await readAll(log, `headwater.saga.${saga}`);
  return records
    .filter((record) => record.key!.toString('utf8') === tripId)
    .map((record) => {
      const { state } = JSON.parse(record.value!.toString('utf8')) as { state: Pick<SagaRow, 'status' | 'steps'> };
      return `${state.status}: ${state.steps.map((step) => step.status).join(' ')}`;
    });
}

async function sentIds(tripId: string): Promise<string[]> {
  const records = await readAll(log, commandTopic);
  return records
    .filter((record) => record.key!.toString('utf8') === tripId)
    .map((record) => headerText(record.headers, 'ce_id')!.split(':').slice(2).join(' '));
}

/** A later trip that is done shows that what came before on all partitions is handled. */
async function settle(): Promise<void> {
  const later = Array.from({ length: 12 }, () => randomUUID());
  await write(later.map((tripId) => tripAsked(tripId)));
  for (const tripId of later) await reaches(tripId, 'completed');
}

describe('sagas under copies', () => {
  it('G21 starts one instance of a start event that comes 10 times', async () => {
    await start('capture', 'processors', 'projections');
    const tripId = randomUUID();
    await write(copies(tripAsked(tripId)));
    await reaches(tripId, 'completed');
    await settle();
    expect(await transitions(name, tripId)).toEqual([
      'running: sent waiting waiting waiting',
      'running: done sent waiting waiting',
      'running: done done sent waiting',
      'running: done done done sent',
      'completed: done done done done',
    ]);
    expect(await sentIds(tripId)).toEqual(['hotel do', 'car do', 'flight do', 'pay do']);
    expect(await effects(tripId)).toEqual(['hotel', 'car', 'flight', 'paid']);
  });

  it('G19 gives a command that comes 10 times one effect and one reply', async () => {
    await start('capture', 'processors', 'projections');
    const tripId = randomUUID();
    const id = randomUUID();
    const command = message(
      commandTopic,
      'BookHotel',
      tripId,
      { tripId, what: 'beach' },
      {
        ce_id: id,
        hw_reply_to: `headwater.saga.${name}.replies`,
        hw_correlation: tripId,
        hw_step: 'hotel',
        hw_direction: 'do',
      },
    );
    await write(copies(command));
    await settle();
    expect(await effects(tripId)).toEqual(['hotel']);
    const replies = (await readAll(log, `headwater.saga.${name}.replies`)).filter(
      (record) => record.key!.toString('utf8') === tripId,
    );
    expect(replies.map((record) => JSON.parse(record.value!.toString('utf8')))).toEqual([
      { step: 'hotel', direction: 'do', outcome: 'ok' },
    ]);
  });

  it('G20 makes one transition of a reply that comes 10 times and sends the next command once', async () => {
    await start('processors', 'projections');
    const tripId = randomUUID();
    await write([tripAsked(tripId)]);
    await reaches(tripId, 'running');
    const reply = message(`headwater.saga.${name}.replies`, 'Reply', tripId, {
      step: 'hotel',
      direction: 'do',
      outcome: 'ok',
    });
    await write(copies(reply));
    await eventually(async () => expect(await effects(tripId)).toEqual(['hotel', 'car']));
    expect(await sentIds(tripId)).toEqual(['hotel do', 'car do']);
    // Capture brings the participant's own reply to hotel, the eleventh, and the rest.
    await stop();
    await start('capture', 'processors', 'projections');
    await reaches(tripId, 'completed');
    expect(await transitions(name, tripId)).toHaveLength(5);
    expect(await sentIds(tripId)).toEqual(['hotel do', 'car do', 'flight do', 'pay do']);
    expect(await effects(tripId)).toEqual(['hotel', 'car', 'flight', 'paid']);
  });

  it('G25 refuses a do that comes after its undo', async () => {
    await start('capture', 'processors', 'projections');
    const tripId = randomUUID();
    const body = { tripId, what: 'beach' };
    const [doId, undoId] = [randomUUID(), randomUUID()];
    await write([
      message(commandTopic, 'CancelHotel', tripId, body, { ce_id: undoId, hw_direction: 'undo', hw_undoes: doId }),
      message(commandTopic, 'BookHotel', tripId, body, { ce_id: doId, hw_direction: 'do' }),
    ]);
    await settle();
    expect(await effects(tripId)).toEqual([]);
    const { rows } = await sql.query('SELECT outcome FROM headwater.inbox WHERE command_id = $1', [doId]);
    expect(rows).toEqual([{ outcome: 'cancelled' }]);
  });

  it('G40 undoes what was done in reverse after a rejection, and tells why', async () => {
    await start('capture', 'processors', 'projections');
    const tripId = randomUUID();
    await write([tripAsked(tripId, 'sold-out')]);
    expect(await reaches(tripId, 'compensated')).toMatchObject({
      reason: 'sold-out',
      steps: [{ status: 'undone' }, { status: 'undone' }, { status: 'rejected' }, { status: 'waiting' }],
    });
    expect(await effects(tripId)).toEqual(['hotel', 'car', 'no car', 'no hotel']);
    expect(await sentIds(tripId)).toEqual(['hotel do', 'car do', 'flight do', 'car undo', 'hotel undo']);
  });
});

describe('deadlines over restarts', () => {
  it('G46 fires a deadline that passed while everything was down once, within 5 s, before newer work', async () => {
    // Without capture the reply to the first step does not come back: the trip waits.
    await start('processors', 'projections');
    const tripId = randomUUID();
    await write([hastyAsked(tripId)]);
    const { started_at: startedAt } = await reaches(tripId, 'running');
    await eventually(async () => expect(await effects(tripId)).toEqual(['hotel']));
    await stop();
    await eventually(() => expect(Date.now()).toBeGreaterThan(new Date(startedAt).getTime() + 2_500));
    expect(await transitions(hastyName, tripId)).toEqual(['running: sent waiting']);
    // The reply that would let the saga go on stands in the log first.
    await write([
      message(`headwater.saga.${hastyName}.replies`, 'Reply', tripId, {
        step: 'hotel',
        direction: 'do',
        outcome: 'ok',
      }),
    ]);
    const restartedAt = Date.now();
    await start('capture', 'processors', 'projections');
    const row = await reaches(tripId, 'compensated');
    expect(row.reason).toBe('deadline');
    expect(await transitions(hastyName, tripId)).toEqual([
      'running: sent waiting',
      'compensating: undoing waiting',
      'compensated: undone waiting',
    ]);
    const fired = (await readAll(log, `headwater.saga.${hastyName}`)).filter(
      (record) => record.key!.toString('utf8') === tripId,
    )[1]!;
    expect(fired.timestamp - restartedAt).toBeLessThan(5_000);
    expect(await effects(tripId)).toEqual(['hotel', 'no hotel']);
  });

  it('G47 never fires a cancelled deadline, also not after a restart', async () => {
    await start('capture', 'processors', 'projections');
    const tripId = randomUUID();
    await write([hastyAsked(tripId)]);
    const { started_at: startedAt } = await reaches(tripId, 'completed');
    const before = await transitions(hastyName, tripId);
    await stop();
    await eventually(() => expect(Date.now()).toBeGreaterThan(new Date(startedAt).getTime() + 2_500));
    await start('capture', 'processors', 'projections');
    const later = Array.from({ length: 12 }, () => randomUUID());
    await write(later.map(hastyAsked));
    for (const one of later) await reaches(one, 'completed');
    expect(await transitions(hastyName, tripId)).toEqual(before);
    expect(await effects(tripId)).toEqual(['hotel', 'paid']);
    // No timer is left in the state: nothing could fire later.
    const timers = new Map<string, boolean>();
    for (const record of await readAll(log, `headwater.saga.${hastyName}.state`))
      timers.set(record.key!.toString('utf8'), record.value !== null);
    expect(timers.get(`t:${tripId}`)).toBe(false);
  });
});
