import { ServicesError } from './testing.errors.js';

export type ServicesMode = 'external' | 'containers' | 'embedded';

export interface ServicesSituation {
  readonly requested: 'auto' | ServicesMode;
  readonly databaseUrl: string | undefined;
  readonly kafkaBrokers: string | undefined;
  readonly preferContainers: boolean;
  /** What each way of starting servers lacks on this machine; empty means it can be used. */
  readonly missing: Readonly<Record<'containers' | 'embedded', readonly string[]>>;
}

export interface ServicesChoice {
  readonly postgres: ServicesMode;
  readonly kafka: ServicesMode;
}

/** Decides which server comes from where; throws one error that lists all three ways when none is possible. */
export function chooseServices(situation: ServicesSituation): ServicesChoice {
  const { requested, databaseUrl, kafkaBrokers, missing } = situation;
  if (requested === 'containers' || requested === 'embedded') {
    if (missing[requested].length > 0) throw unavailable(situation);
    return { postgres: requested, kafka: requested };
  }
  if (databaseUrl && kafkaBrokers) return { postgres: 'external', kafka: 'external' };
  if (requested === 'external' && !databaseUrl && !kafkaBrokers) throw unavailable(situation);
  const ways = situation.preferContainers
    ? (['containers', 'embedded'] as const)
    : (['embedded', 'containers'] as const);
  const started = ways.find((way) => missing[way].length === 0);
  if (!started) throw unavailable(situation);
  return { postgres: databaseUrl ? 'external' : started, kafka: kafkaBrokers ? 'external' : started };
}

/** Reads HEADWATER_SERVICES; anything unknown is refused with the values that exist. */
export function parseServicesMode(value: string | undefined): 'auto' | ServicesMode {
  switch (value || 'auto') {
    case 'auto':
    case 'external':
    case 'containers':
    case 'embedded':
      return (value || 'auto') as 'auto' | ServicesMode;
    default:
      throw new ServicesError(
        'SERVICES_MODE',
        `HEADWATER_SERVICES is "${value}". Use external, containers, embedded or auto.`,
      );
  }
}

function unavailable({ requested, databaseUrl, kafkaBrokers, missing }: ServicesSituation): ServicesError {
  const unset = [databaseUrl ? [] : ['DATABASE_URL'], kafkaBrokers ? [] : ['KAFKA_BROKERS']].flat();
  const line = (way: string, lacks: readonly string[]): string =>
    `  ${way}: ${lacks.length === 0 ? 'possible' : `missing ${lacks.join('; ')}`}`;
  return new ServicesError(
    'SERVICES_UNAVAILABLE',
    [
      `Postgres and Kafka are needed and HEADWATER_SERVICES=${requested} cannot provide them. The three ways:`,
      line('external  ', unset),
      line('containers', missing.containers),
      line('embedded  ', missing.embedded),
    ].join('\n'),
  );
}
