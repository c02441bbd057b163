import { describe, expect, it } from '@jest/globals';
import { chooseServices, parseServicesMode, type ServicesSituation } from './choose-services.js';

const nothingSet: ServicesSituation = {
  requested: 'auto',
  databaseUrl: undefined,
  kafkaBrokers: undefined,
  preferContainers: false,
  missing: { containers: [], embedded: [] },
};
const url = 'postgres://127.0.0.1/x';
const brokers = '127.0.0.1:9092';

describe('chooseServices', () => {
  it.each([
    ['embedded for npm start although an engine answers', {}, 'embedded', 'embedded'],
    ['containers for tests when an engine answers', { preferContainers: true }, 'containers', 'containers'],
    [
      'embedded for tests without an engine',
      { preferContainers: true, missing: { containers: ['an engine'], embedded: [] } },
      'embedded',
      'embedded',
    ],
    [
      'containers when Java is missing',
      { missing: { containers: [], embedded: ['Java'] } },
      'containers',
      'containers',
    ],
    ['external when both are named', { databaseUrl: url, kafkaBrokers: brokers }, 'external', 'external'],
    ['one named database as external and starts Kafka', { databaseUrl: url }, 'external', 'embedded'],
    ['one named Kafka as external and starts Postgres', { kafkaBrokers: brokers }, 'embedded', 'external'],
    ['the same when external is requested', { requested: 'external', databaseUrl: url }, 'external', 'embedded'],
    [
      'what was requested over what is named',
      { requested: 'embedded', databaseUrl: url, kafkaBrokers: brokers },
      'embedded',
      'embedded',
    ],
    [
      'external without any engine or Java',
      { databaseUrl: url, kafkaBrokers: brokers, missing: { containers: ['an engine'], embedded: ['Java'] } },
      'external',
      'external',
    ],
  ] as const)('takes %s', (_, situation, postgres, kafka) => {
    expect(chooseServices({ ...nothingSet, ...situation })).toEqual({ postgres, kafka });
  });

  it('lists the three ways and what each lacks in one error', () => {
    const missing = { containers: ['an engine'], embedded: ['Java 17', 'Maven'] };
    expect(() => chooseServices({ ...nothingSet, databaseUrl: url, missing })).toThrow(
      /SERVICES_UNAVAILABLE[^]*external +: missing KAFKA_BROKERS\n.*containers: missing an engine\n.*embedded +: missing Java 17; Maven/,
    );
  });

  it('refuses a requested way that lacks something instead of taking another', () => {
    const missing = { containers: ['an engine'], embedded: [] };
    expect(() => chooseServices({ ...nothingSet, requested: 'containers', missing })).toThrow(/missing an engine/);
    expect(() => chooseServices({ ...nothingSet, requested: 'external' })).toThrow(/DATABASE_URL; KAFKA_BROKERS/);
  });
});

describe('parseServicesMode', () => {
  it('defaults to auto and refuses unknown values', () => {
    expect(parseServicesMode(undefined)).toBe('auto');
    expect(parseServicesMode('embedded')).toBe('embedded');
    expect(() => parseServicesMode('docker')).toThrow(/"docker". Use external, containers, embedded or auto/);
  });
});
