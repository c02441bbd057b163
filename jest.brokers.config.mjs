// npm run test:brokers: the specs that run on other releases of Kafka than the default one.
import config from './jest.config.mjs';

const [{ displayName: _, testMatch: __, ...common }] = config.projects;

export default {
  ...common,
  testMatch: ['<rootDir>/packages/*/src/**/*.versions.spec.ts'],
  testPathIgnorePatterns: ['/node_modules/', '/dist/', '/.headwater/'],
};
