import 'reflect-metadata';
import type { Server } from 'node:http';
import { NestFactory } from '@nestjs/core';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { errorMessage } from '@headwater/core';
import { kafkaLog } from '@headwater/kafka';
import { AppModule } from './app.module.js';
import { ensureBankSchema } from './bank.schema.js';
import { ConfigError, readConfig, type BankConfig } from './config.js';

const DRAIN_LIMIT_MS = 15_000;

async function main(): Promise<void> {
  const config = readConfig(process.env);
  await ensureBankSchema(config.databaseUrl);
  const log = config.brokers.length === 0 ? undefined : openLog(config);
  const app = await NestFactory.create(AppModule.for(config, log), {
    logger: ['error', 'warn', 'log'],
    forceCloseConnections: true,
  });
  const document = SwaggerModule.createDocument(
    app,
    new DocumentBuilder().setTitle('Headwater sample bank').setVersion('0.1.0').build(),
  );
  SwaggerModule.setup('docs', app, document, { jsonDocumentUrl: 'openapi.json' });

  let stopping: Promise<void> | undefined;
  const stop = (exitCode: number) => {
    stopping ??= drain(app.close()).then(
      () => process.exit(exitCode),
      (error: unknown) => {
        console.error(`stopping: ${errorMessage(error)}`);
        process.exit(1);
      },
    );
  };
  process.once('SIGTERM', () => stop(0));
  process.once('SIGINT', () => stop(0));
  // Started by a parent that holds a channel to us: without the parent nobody could stop this process.
  process.once('disconnect', () => stop(0));

  await app.listen(config.port, config.host);
  const server = app.getHttpServer() as Server;
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : config.port;
  console.log(`Sample bank ready at http://${config.host}:${port}`);
}

function openLog(config: BankConfig) {
  return kafkaLog({
    brokers: [...config.brokers],
    clientId: `bank-${config.roles.join('-')}`,
    ...(config.kafkaSsl ? { ssl: true } : {}),
    ...(config.kafkaSasl === undefined ? {} : { sasl: config.kafkaSasl }),
  });
}

async function drain(closing: Promise<void>): Promise<void> {
  const limit = setTimeout(() => {
    console.error(`not drained within ${DRAIN_LIMIT_MS} ms; what was in flight is repeated by the next start`);
    process.exit(1);
  }, DRAIN_LIMIT_MS);
  await closing;
  clearTimeout(limit);
}

main().catch((error: unknown) => {
  console.error(errorMessage(error));
  process.exit(error instanceof ConfigError ? 2 : 1);
});
