import { createRequire } from 'node:module';
import type { SASLOptions } from 'kafkajs';

/** What the brokers want to be told. The mechanism must be one that their listener enables. */
export type SaslOptions =
  | {
      readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
      readonly username: string;
      readonly password: string;
    }
  | {
      readonly mechanism: 'oauthbearer';
      /**
       * Gives a token that is valid now: asked for each new connection, and again before a broker's `connections.max.reauth.ms` is over. Keep
       * the token while it is good. A rejection counts as a lost connection and is tried again.
       */
      readonly oauthBearerProvider: () => Promise<OauthBearerToken>;
    };

export interface OauthBearerToken {
  /** The token, encoded as the brokers expect it: mostly a JWT. */
  readonly value: string;
  /** SASL extensions (RFC 7628). Default none. */
  readonly extensions?: Readonly<Record<string, string>>;
}

type Authenticate = (exchange: object) => Promise<unknown>;
interface Link {
  readonly saslAuthenticate: Authenticate;
}
type Provider = (link: Link) => { authenticate(): Promise<void> };

const MODULES = {
  plain: 'plain',
  'scram-sha-256': 'scram256',
  'scram-sha-512': 'scram512',
  oauthbearer: 'oauthBearer',
} as const;

/**
 * kafkajs's mechanisms, but for their errors: they call it wrong credentials when the connection breaks in the middle, and what heals by
 * itself would count as fatal.
 */
export function kafkajsSasl(sasl: SaslOptions): SASLOptions {
  const path = `kafkajs/src/broker/saslAuthenticator/${MODULES[sasl.mechanism]}`;
  const provider = (createRequire(import.meta.url)(path) as (options: SaslOptions) => Provider)(sasl);
  const authenticationProvider: Provider = (link) => {
    let lost: unknown;
    const saslAuthenticate: Authenticate = async (exchange) => {
      try {
        return await link.saslAuthenticate(exchange);
      } catch (error) {
        if (!isAnswer(error)) lost = error;
        throw error;
      }
    };
    const mechanism = provider({ ...link, saslAuthenticate });
    return {
      async authenticate() {
        try {
          await mechanism.authenticate();
        } catch (error) {
          throw lost ?? error;
        }
      },
    };
  };
  return { mechanism: sasl.mechanism, authenticationProvider } as unknown as SASLOptions;
}

/** The broker has answered, with an error code. */
function isAnswer(error: unknown): boolean {
  return (error as { name?: string } | null)?.name === 'KafkaJSProtocolError';
}
