import { spawn, type ChildProcess } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import pg from 'pg';
import type { Log, LogRecord } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { devServices, type DevServices } from '@headwater/testing';

const ROOT = join(import.meta.dirname, '..');
const MAIN = join(ROOT, 'apps', 'sample-bank', 'dist', 'main.js');

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
  /** The JSON body; an empty object when the body is none. */
  readonly body: Record<string, unknown>;
}

export interface TransferRequest {
  readonly fromAccountId: string;
  readonly toAccountId: string;
  readonly amountCents: number;
  readonly currency?: string;
  readonly reference?: string;
}

/** One process of the bank. */
export class BankProcess {
  readonly #child: ChildProcess;
  readonly url: string;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.url = url;
  }

  /** Resolves when the process takes requests. */
  static async start(env: Readonly<Record<string, string>>): Promise<BankProcess> {
    // The channel ends the process when this one is killed.
    const child = spawn(process.execPath, ['--enable-source-maps', MAIN], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, ...env },
    });
    let output = '';
    const url = await new Promise<string>((resolve, reject) => {
      const read = (chunk: Buffer) => {
        output = (output + chunk.toString('utf8')).slice(-20_000);
        const ready = /Sample bank ready at (\S+)/.exec(output);
        if (ready !== null) resolve(ready[1]!);
      };
      child.stdout!.on('data', read);
      child.stderr!.on('data', read);
      child.once('error', reject);
      child.once('exit', (code, signal) => reject(new Error(`the bank ended with ${signal ?? code}:\n${output}`)));
    });
    return new BankProcess(child, url);
  }

  /** kill -9. */
  kill(): Promise<void> {
    return this.#end('SIGKILL');
  }

  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  async call(method: 'GET' | 'POST', path: string, body?: object, key?: string): Promise<Answer> {
    const response = await fetch(this.url + path, {
      method,
      headers: { 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const type = response.headers.get('content-type') ?? '';
    return {
      status: response.status,
      type,
      text,
      body: type.includes('json') ? (JSON.parse(text) as Record<string, unknown>) : {},
    };
  }

  get(path: string): Promise<Answer> {
    return this.call('GET', path);
  }

  /** Opens an account with money on it. */
  async open(depositCents = 0, currency = 'EUR'): Promise<string> {
    const opened = await this.call('POST', '/accounts', { owner: 'Ada', currency });
    if (opened.status !== 201) throw new Error(`POST /accounts: ${opened.status} ${opened.text}`);
    const accountId = String(opened.body['accountId']);
    if (depositCents > 0) {
      const booked = await this.call('POST', `/accounts/${accountId}/deposits`, { amountCents: depositCents });
      if (booked.status !== 201) throw new Error(`POST deposits: ${booked.status} ${booked.text}`);
    }
    return accountId;
  }

  transfer(request: TransferRequest, key: string = randomUUID()): Promise<Answer> {
    return this.call('POST', '/transfers', { currency: 'EUR', ...request }, key);
  }

  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
  }
}

/** The bank with a Postgres and a Kafka of its own: the names of its topics and of its slot are fixed. */
export class Bank {
  readonly #services: DevServices;
  readonly #directory: string;
  readonly #processes: BankProcess[] = [];
  /** For looking at rows; no process of the bank uses it. */
  readonly sql: pg.Pool;
  /** For looking at records, and for records that nobody should have written. */
  readonly log: Log;

  private constructor(services: DevServices, directory: string) {
    this.#services = services;
    this.#directory = directory;
    this.sql = new pg.Pool({ connectionString: services.databaseUrl, max: 2 });
    // pg.Pool.end() resolves before its connections are closed: the server's stop may still tell one of them.
    this.sql.on('error', () => undefined);
    this.log = kafkaLog({ brokers: services.kafkaBrokers });
  }

  static async start(kafkaSettings: Readonly<Record<string, string>> = {}): Promise<Bank> {
    // The next `npm test` sweeps what a killed run leaves under this name.
    const directory = join(ROOT, '.headwater', `test-${process.pid}`);
    return new Bank(await devServices({ mode: 'embedded', directory, fresh: true, kafkaSettings }), directory);
  }

  get databaseUrl(): string {
    return this.#services.databaseUrl;
  }

  get kafkaPort(): number {
    return this.#services.kafka.port;
  }

  /** Another process with these roles; `stop` ends it. */
  async process(
    roles = 'api,capture,processors,projections',
    env: Readonly<Record<string, string>> = {},
  ): Promise<BankProcess> {
    const started = await BankProcess.start({
      DATABASE_URL: this.#services.databaseUrl,
      KAFKA_BROKERS: this.#services.kafkaBrokers.join(','),
      PORT: '0',
      HEADWATER_ROLES: roles,
      HEADWATER_INSTANCE_ID: roles.replaceAll(',', '-'),
      ...env,
    });
    this.#processes.push(started);
    return started;
  }

  async rows<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    return (await this.sql.query<Row>(text, values)).rows;
  }

  async count(text: string, values: unknown[] = []): Promise<number> {
    return Number((await this.rows<{ n: string }>(`SELECT count(*)::text AS n ${text}`, values))[0]!.n);
  }

  records(topic: string): Promise<LogRecord[]> {
    return readAll(this.log, topic);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#processes.map((one) => one.stop()));
    await this.log.close();
    await this.sql.end();
    await this.#services.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Everything committed in a topic, per partition in its order. */
export async function readAll(log: Log, topic: string): Promise<LogRecord[]> {
  const reader = log.reader();
  try {
    const open = new Map<number, number>();
    for (const { partition, start, lastStable } of await log.admin.offsets(topic)) {
      if (lastStable <= start) continue;
      open.set(partition, lastStable);
      reader.seek(topic, partition, start);
    }
    const records: LogRecord[] = [];
    while (open.size > 0) {
      for (const batch of await reader.poll({ maxWaitMs: 100 })) {
        records.push(...batch.records);
        if (batch.nextOffset >= (open.get(batch.partition) ?? 0)) open.delete(batch.partition);
      }
    }
    return records.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
  } finally {
    await reader.close();
  }
}
