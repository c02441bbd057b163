import { Pivot, Retriable, Saga, Step, Undo } from '@headwater/sagas';
import {
  PostTransfer,
  ReleaseFunds,
  ReserveFunds,
  ScreenTransfer,
  SendReceipt,
  TransferRequested,
} from './transfer.messages.js';

/** Hold the money, screen the payment, post it, send the receipt. A refusal after the hold releases it. */
@Saga({ name: 'transfer', startedBy: TransferRequested, deadline: '60s', version: 1 })
export class TransferSaga {
  @Step(ReserveFunds) reserve(transfer: TransferRequested) {
    return new ReserveFunds(transfer);
  }

  @Undo('reserve', ReleaseFunds) release(transfer: TransferRequested) {
    return new ReleaseFunds(transfer);
  }

  @Step(ScreenTransfer) screen(transfer: TransferRequested) {
    return new ScreenTransfer(transfer);
  }

  @Pivot(PostTransfer) post(transfer: TransferRequested) {
    return new PostTransfer(transfer);
  }

  @Retriable(SendReceipt) receipt(transfer: TransferRequested) {
    return new SendReceipt(transfer);
  }
}
