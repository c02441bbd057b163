import { Module, ValidationPipe, type DynamicModule } from '@nestjs/common';
import { APP_FILTER, APP_PIPE } from '@nestjs/core';
import { TerminusModule } from '@nestjs/terminus';
import { capture, positionTopicOf } from '@headwater/cdc';
import type { Log } from '@headwater/core';
import { HeadwaterModule } from '@headwater/core/nest';
import { projections } from '@headwater/projections';
import { sagas } from '@headwater/sagas';
import { Account } from './accounts/account.js';
import { AccountsController } from './accounts/accounts.controller.js';
import { AccountsService } from './accounts/accounts.service.js';
import { Balances } from './accounts/balances.projection.js';
import type { BankConfig } from './config.js';
import { Idempotency } from './http/idempotency.js';
import { ProblemFilter, invalidBody } from './http/problem.js';
import { LedgerController } from './ledger/ledger.controller.js';
import { LedgerService } from './ledger/ledger.service.js';
import { HealthController } from './operations/health.controller.js';
import { Metrics } from './operations/metrics.js';
import { BANK_CONFIG, OperatorGuard } from './operations/operator.guard.js';
import { PageController } from './operations/page.controller.js';
import { SagasController } from './operations/sagas.controller.js';
import { Compliance, Ledger, Receipts } from './transfers/participants.js';
import {
  PostTransfer,
  ReleaseFunds,
  ReserveFunds,
  ScreenTransfer,
  SendReceipt,
  TransferRequested,
} from './transfers/transfer.messages.js';
import { TransferSaga } from './transfers/transfer.saga.js';
import { TransfersController } from './transfers/transfers.controller.js';
import { TransfersService } from './transfers/transfers.service.js';

const CAPTURE = 'bank';

@Module({})
export class AppModule {
  /** The bank for one process: `log` is left out when it only serves the API. */
  static for(config: BankConfig, log: Log | undefined): DynamicModule {
    return {
      module: AppModule,
      imports: [
        HeadwaterModule.forRoot({
          databaseUrl: config.databaseUrl,
          ...(log === undefined ? {} : { log }),
          ...(config.instanceId === undefined ? {} : { instanceId: config.instanceId }),
          roles: config.roles,
          engines: [
            capture({ name: CAPTURE, connectionString: config.databaseUrl }),
            projections({ positionTopic: positionTopicOf(CAPTURE) }),
            sagas(),
          ],
        }),
        HeadwaterModule.forFeature([Account, Balances]),
        HeadwaterModule.forFeature([
          TransferRequested,
          ReserveFunds,
          ReleaseFunds,
          ScreenTransfer,
          PostTransfer,
          SendReceipt,
        ]),
        HeadwaterModule.forFeature([TransferSaga, Ledger, Compliance, Receipts]),
        TerminusModule,
      ],
      controllers: [
        AccountsController,
        TransfersController,
        LedgerController,
        SagasController,
        HealthController,
        PageController,
      ],
      providers: [
        { provide: BANK_CONFIG, useValue: config },
        AccountsService,
        TransfersService,
        LedgerService,
        Idempotency,
        OperatorGuard,
        Metrics,
        { provide: APP_FILTER, useClass: ProblemFilter },
        {
          provide: APP_PIPE,
          useValue: new ValidationPipe({
            whitelist: true,
            forbidNonWhitelisted: true,
            transform: true,
            exceptionFactory: invalidBody,
          }),
        },
      ],
    };
  }
}
