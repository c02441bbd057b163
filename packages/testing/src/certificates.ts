import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Paths of PEM files; the key is not encrypted. */
export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
  /** Both as text. */
  readonly cert: string;
  readonly key: string;
}

/** What signs certificates that are good for two days. */
export interface CertificateAuthority {
  readonly caFile: string;
  /** Its certificate as text: what the other side is to trust. */
  readonly ca: string;
  /** For a server on 127.0.0.1, or a client: `name` is its common name. */
  issue(name: string): Certificate;
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/** An authority of its own in this directory, which is made when absent. Needs openssl. */
export function certificateAuthority(directory: string): CertificateAuthority {
  mkdirSync(directory, { recursive: true });
  const [caFile, caKey, extensions] = ['ca.pem', 'ca.key', 'extensions'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  openssl('req', '-x509', ...KEY, '-days', '2', '-subj', '/CN=headwater test CA', '-keyout', caKey, '-out', caFile);
  writeFileSync(extensions, 'subjectAltName = IP:127.0.0.1\n');
  return {
    caFile,
    ca: readFileSync(caFile, 'utf8'),
    issue(name) {
      const [certFile, keyFile, request] = ['pem', 'key', 'csr'].map((end) => join(directory, `${name}.${end}`)) as [
        string,
        string,
        string,
      ];
      openssl('req', ...KEY, '-subj', `/CN=${name}`, '-keyout', keyFile, '-out', request);
      const by = ['-CA', caFile, '-CAkey', caKey, '-CAcreateserial', '-extfile', extensions];
      openssl('x509', '-req', '-in', request, ...by, '-days', '2', '-out', certFile);
      return { certFile, keyFile, cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
    },
  };
}

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: 'pipe' });
}
