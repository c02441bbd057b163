// One jest run for all: unit specs (.spec.ts), specs on real Postgres (.pg.spec.ts), on real Kafka (.kafka.spec.ts), flows in test/.
const common = {
  extensionsToTreatAsEsm: ['.ts'],
  testEnvironment: 'node',
  runner: '<rootDir>/test/runner.mjs',
  setupFilesAfterEnv: ['<rootDir>/test/setup.ts'],
  transform: {
    '\\.ts$': [
      '@swc/jest',
      {
        module: { type: 'es6' },
        sourceMaps: 'inline',
        jsc: {
          target: 'es2022',
          keepClassNames: true,
          parser: { syntax: 'typescript', decorators: true },
          transform: { legacyDecorator: true, decoratorMetadata: true },
        },
      },
    ],
  },
  moduleNameMapper: {
    '^@headwater/(core|kafka|cdc|projections|sagas|state-level|testing)$': '<rootDir>/packages/$1/src/index.ts',
    '^@headwater/core/nest$': '<rootDir>/packages/core/src/nest.ts',
    '^@headwater/testing/log-suite$': '<rootDir>/packages/testing/src/log-suite/log-suite.ts',
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
  testPathIgnorePatterns: ['/node_modules/', '/dist/', '/.headwater/'],
  modulePathIgnorePatterns: ['/dist/', '/.headwater/'],
};
// Those of other Kafka releases have a run of their own: npm run test:brokers.
const elsewhere = '\\.(pg|kafka|versions)\\.spec\\.ts$';

export default {
  maxWorkers: 2,
  testSequencer: '<rootDir>/test/sequencer.mjs',
  projects: [
    {
      ...common,
      displayName: 'unit',
      testMatch: ['<rootDir>/{packages,apps}/*/src/**/*.spec.ts'],
      testPathIgnorePatterns: [...common.testPathIgnorePatterns, elsewhere],
    },
    {
      ...common,
      displayName: 'services',
      testMatch: ['<rootDir>/{packages,apps}/*/src/**/*.{pg,kafka}.spec.ts', '<rootDir>/test/**/*.spec.ts'],
    },
  ],
};
