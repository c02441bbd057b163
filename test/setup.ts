import { jest } from '@jest/globals';

// Real servers on two shared cores: a case may take a while, a hang must still end.
jest.setTimeout(120_000);
