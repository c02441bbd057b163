import { On, Projection, row, type Change } from '@headwater/projections';
import { Account } from './account.js';

/** What `GET /accounts/:id` answers from. */
@Projection({
  name: 'balances',
  version: 1,
  columns: {
    account_id: 'uuid',
    owner: 'text',
    currency: 'text',
    kind: 'text',
    posted_cents: 'bigint',
    pending_cents: 'bigint',
    available_cents: 'bigint',
    version: 'bigint',
  },
  indexes: [['owner']],
})
export class Balances {
  @On(Account) balance({ key, after }: Change<Account>) {
    if (after === undefined) return row({ account_id: key });
    return row({
      account_id: key,
      owner: after.owner,
      currency: after.currency,
      kind: after.kind,
      posted_cents: after.postedCents,
      pending_cents: after.heldCents,
      available_cents: after.postedCents - after.heldCents + after.overdraftLimitCents,
      version: after.version,
    });
  }
}
