import { afterAll } from '@jest/globals';
import { describeLog } from '@headwater/testing/log-suite';
import { testBrokers } from './broker.testing.js';
import { kafkaUnderTest } from './kafka-under-test.testing.js';

const kafka = kafkaUnderTest(testBrokers);
afterAll(() => kafka.close());

describeLog('kafkaLog', kafka);
