import { Kafka, logLevel, type Admin } from 'kafkajs';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, uniqueName } from '@headwater/testing';
import { produce, textRecord } from '../log/log.testing.js';
import { stateTopicOf } from './processor.js';
import { Scene, brokers, sums } from './process.testing.js';

let scene: Scene;
let admin: Admin;
beforeEach(async () => {
  scene = new Scene();
  admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
});
afterEach(async () => {
  await admin.disconnect();
  await scene.close();
});

const keys = ['a', 'b', 'c', 'd'];

async function loseBelow(topic: string, partition: number, offset: number): Promise<void> {
  // Loads the metadata that kafkajs forgets to load for the next request.
  await admin.fetchTopicOffsets(topic);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] });
}

describe('the inputs of a processor', () => {
  /** Handles two records, stops, and has the third removed before it was handled: the fourth is left. */
  async function lostInput(): Promise<void> {
    await scene.createTopics(1);
    const first = scene.run();
    await produce(scene.log, [scene.record('a', '1'), scene.record('a', '1')]);
    await scene.seen({ a: ['1', '2'] });
    await first.stop();
    await produce(scene.log, [scene.record('a', '10'), scene.record('a', '100')]);
    await loseBelow(scene.input, 0, 4);
  }

  it('S12 stop it with partition, wanted offset and range when its next record is gone', async () => {
    await lostInput();
    const runner = scene.run();
    await scene.status(runner, 'down');
    const error = new RegExp(`PROCESS_INPUT_LOST: ${scene.input}-0: offset [23] is wanted, the log holds 4 to 6`);
    expect(scene.errors.join()).toMatch(error);
    expect(runner.health().facts['lastError']).toMatch(error);
    await scene.seen({ a: ['1', '2'] });
    expect((await scene.log.admin.lag(`headwater.${scene.name}`, [scene.input]))[0]!.committed).toBeLessThan(4);
  });

  it('S12 are read from the earliest record left, loudly, under the policy restart', async () => {
    await lostInput();
    scene.run({ onLostInput: 'restart' });
    await scene.seen({ a: ['1', '2', '102'] });
    expect(scene.errors.join()).toMatch(
      /lost its records from offset [23] on; it is read from the earliest left, offset 4/,
    );
  });

  it('S13 are refused when partitions were added, at the next start, with topic, counts and remedy', async () => {
    await scene.createTopics(2);
    const first = scene.run();
    await produce(scene.log, scene.ones(keys, 1));
    await scene.seen(sums(keys, 1));
    await first.stop();
    await admin.createPartitions({ topicPartitions: [{ topic: scene.input, count: 3 }] });
    await produce(scene.log, scene.ones(keys, 1));
    const runner = scene.run();
    await scene.status(runner, 'down');
    expect(scene.errors.join()).toMatch(
      new RegExp(
        `PROCESS_PARTITIONS_CHANGED: ${scene.input} has 3 partitions, the state of ${scene.name} was made with 2: .*Copy the input into a new topic`,
      ),
    );
    await scene.seen(sums(keys, 1));
  });

  it('S13 are refused at the next start also when all topics of the processor were changed alike', async () => {
    await scene.createTopics(1);
    const first = scene.run();
    await produce(scene.log, scene.ones(keys, 1));
    await scene.seen(sums(keys, 1));
    await first.stop();
    const all = [
      scene.input,
      stateTopicOf(scene.name),
      `headwater.${scene.name}.control`,
      `headwater.${scene.name}.parked`,
    ];
    await admin.createPartitions({ topicPartitions: all.map((topic) => ({ topic, count: 2 })) });
    const runner = scene.run();
    await scene.status(runner, 'down');
    expect(scene.errors.join()).toMatch(
      /PROCESS_PARTITIONS_CHANGED: .*has 2 partitions, the state of .* was made with 1/,
    );
  });

  it('S13 halt it while it runs when partitions are added', async () => {
    await scene.createTopics(2);
    const runner = scene.run();
    await produce(scene.log, scene.ones(keys, 1));
    await scene.seen(sums(keys, 1));
    await admin.createPartitions({ topicPartitions: [{ topic: scene.input, count: 3 }] });
    await scene.status(runner, 'down');
    expect(scene.errors.join()).toMatch(new RegExp(`PROCESS_PARTITIONS_CHANGED: ${scene.input} has 3 partitions`));
    await produce(scene.log, scene.ones(keys, 1));
    await scene.seen(sums(keys, 1));
  });

  it('S88 are refused at the start when their partition counts differ, with topics, counts and remedy', async () => {
    const other = uniqueName('other');
    await scene.createTopics(4);
    await scene.log.admin.ensureTopics([{ topic: other, partitions: 6, cleanupPolicy: 'delete' }]);
    await produce(scene.log, [...scene.ones(keys, 1), textRecord(other, 'a', '1')]);
    const runner = scene.run({ inputs: [scene.input, other] });
    await scene.status(runner, 'down');
    expect(scene.errors.join()).toMatch(
      new RegExp(
        `PROCESS_NOT_COPARTITIONED: .*${scene.input} has 4, ${other} has 6.*Copy one of them into a new topic`,
      ),
    );
    await scene.seen({});
  });

  it('are refused when one was renamed, until the version is raised; an older version is refused then', async () => {
    const renamed = uniqueName('renamed');
    await scene.createTopics(1, [scene.input, renamed]);
    const first = scene.run();
    await produce(scene.log, [scene.record('a', '1')]);
    await scene.seen({ a: ['1'] });
    await first.stop();
    await produce(scene.log, [textRecord(renamed, 'a', '10')]);
    const refused = scene.run({ inputs: [renamed] });
    await scene.status(refused, 'down');
    expect(scene.errors.join()).toMatch(
      new RegExp(`PROCESS_STATE_FOREIGN: .*was made from ${scene.input}, which is no longer an input.*set version: 2`),
    );
    await scene.seen({ a: ['1'] });
    await refused.stop();
    const second = scene.run({ inputs: [renamed], version: 2 });
    await scene.seen({ a: ['1', '11'] });
    await second.stop();
    const older = scene.run();
    await scene.status(older, 'down');
    expect(scene.errors.at(-1)).toMatch(/PROCESS_STATE_FOREIGN: .*is of version 2, declared is 1/);
  });

  it('S106 stop it while one is deleted, name it, leave other processors alone, and are read again when made again', async () => {
    const neighbour = new Scene();
    scene.onClose(() => neighbour.close());
    await scene.createTopics(2);
    await neighbour.createTopics(2);
    const runner = scene.run();
    const other = neighbour.run();
    await produce(scene.log, [...scene.ones(keys, 2), ...neighbour.ones(keys, 1)]);
    await scene.seen(sums(keys, 2));
    await neighbour.seen(sums(keys, 1));
    await scene.log.admin.deleteTopics([scene.input]);
    await eventually(() => expect(scene.warnings.join()).toMatch(new RegExp(`_MISSING: .*${scene.input}`)), {
      timeoutMs: 30_000,
    });
    expect(runner.health()).toMatchObject({
      status: 'starting',
      facts: { lastError: expect.stringContaining(scene.input) },
    });
    await produce(scene.log, neighbour.ones(keys, 1));
    await neighbour.seen(sums(keys, 2));
    expect(other.health()).toMatchObject({ status: 'up', facts: { restarts: 0 } });
    await scene.log.admin.ensureTopics([{ topic: scene.input, partitions: 2, cleanupPolicy: 'delete' }]);
    // Fewer than before: the old offsets lie beyond the end of the new topic.
    await produce(scene.log, [scene.record('a', '1')]);
    await scene.seen({ ...sums(keys, 2), a: ['1', '2', '3'] });
    await scene.status(runner, 'up');
    expect(scene.warnings.join()).toMatch(/was made again; it is read from its start/);
    await runner.stop();
    scene.run();
    await produce(scene.log, scene.ones(keys, 1));
    await scene.seen({ ...sums(keys, 3), a: ['1', '2', '3', '4'] });
  });
});
