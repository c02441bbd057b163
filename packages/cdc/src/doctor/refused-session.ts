import { errorCode, errorMessage } from '@headwater/core';
import { hbaFix } from './diagnose.js';

/** What Node says of a certificate that it does not trust (node:tls, X509 certificate error codes). */
const UNTRUSTED: ReadonlySet<string> = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/**
 * Why a session was not opened, with what to do, where a repetition would not help; undefined: worth another try. Names no password.
 * SQLSTATEs: Postgres docs, Appendix A.
 */
export function sessionRefusal(error: unknown, connectionString: string): string | undefined {
  const { database, role, host } = namesIn(connectionString);
  const code = errorCode(error) ?? '';
  const why = errorMessage(error);
  if (code === '28000' && /pg_hba/.test(why)) return `the server lets no session in: ${why}. ${hbaFix(database, role)}`;
  if (code === '28P01')
    return `the password of role "${role}" is refused: ${why}. Correct it in the connection string, or ALTER ROLE "${role}" PASSWORD '…'.`;
  if (code.startsWith('28') && /certificate/.test(why))
    return `the server takes role "${role}" by a certificate: ${why}. Name one that it accepts, with its key (ssl.certFile and ssl.keyFile, or sslcert and sslkey in the connection string).`;
  if (code.startsWith('28'))
    return `role "${role}" is refused: ${why}. Correct the connection string, or CREATE ROLE "${role}" LOGIN REPLICATION.`;
  if (code === '3D000')
    return `there is no database "${database}": ${why}. Correct its name in the connection string, or create it.`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `the server's certificate is not for "${host}": ${why}. Connect by a name that it holds, or have it made for this one.`;
  if (UNTRUSTED.has(code))
    return `the server's certificate is not trusted: ${why}. Name the certificate of its CA (ssl.caFile, or sslrootcert in the connection string).`;
  if (/does not support SSL/.test(why))
    return `TLS is asked for, and the server has none: ${why}. Set ssl = on there, or leave TLS out here.`;
  return undefined;
}

function namesIn(connectionString: string): { database: string; role: string; host: string } {
  const url = URL.canParse(connectionString) ? new URL(connectionString) : undefined;
  return {
    database: decodeURIComponent(url?.pathname.slice(1) || 'all'),
    role: decodeURIComponent(url?.username || 'all'),
    host: url?.hostname ?? '',
  };
}
