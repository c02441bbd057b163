import { jest } from '@jest/globals';

// A case may take a while, on real servers or on a machine that stands still for seconds: only a hang must end.
jest.setTimeout(120_000);
