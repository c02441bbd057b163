import { expect, it } from '@jest/globals';
import { sessionRefusal } from './refused-session.js';

const URL = 'postgres://capture%40shop:hunter2@db.example:5432/shop';
const refusal = (code: string, message: string) => sessionRefusal(Object.assign(new Error(message), { code }), URL);

it.each([
  ['28000', 'no pg_hba.conf entry for host', /Add to pg_hba.conf: host "shop" "capture@shop"/],
  ['28000', 'role "capture@shop" is not permitted to log in', /CREATE ROLE "capture@shop" LOGIN/],
  ['28P01', 'password authentication failed', /password of role "capture@shop" is refused.*ALTER ROLE/],
  ['3D000', 'database "shop" does not exist', /no database "shop".*create it/],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'self-signed certificate', /not trusted.*ssl.caFile/],
  ['ERR_TLS_CERT_ALTNAME_INVALID', "Hostname/IP does not match certificate's altnames", /not for "db.example"/],
  ['', 'The server does not support SSL connections', /ssl = on/],
])('tells what to do about %s (%s)', (code, message, remedy) => {
  expect(refusal(code, message)).toMatch(remedy);
  expect(refusal(code, message)).not.toContain('hunter2');
});

it.each([
  ['ECONNREFUSED', 'connect ECONNREFUSED'],
  ['57P03', 'the database system is starting up'],
  ['53300', 'too many clients already'],
])('leaves %s to another try', (code, message) => {
  expect(refusal(code, message)).toBeUndefined();
});
