import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually, type FaultProxy } from '@headwater/testing';
import type { Header } from '../log/log.js';
import { produce } from '../log/log.testing.js';
import { Scene } from './process.testing.js';

const MARK = Buffer.from('the batch to be spoilt');

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(() => scene.close());

/** One batch. */
const add = (partition: number, ...headers: Header[]) =>
  produce(scene.log, [{ ...scene.record(`key-${partition}`, '1'), partition, headers }]);

/** The broker's disk has one bit wrong in every batch that holds the mark. */
function spoil(proxy: FaultProxy): void {
  proxy.decide = ({ apiName }) =>
    apiName === 'Fetch'
      ? {
          at: 'response',
          act: 'rewrite',
          rewrite: (frame) => {
            const spoilt = Buffer.from(frame);
            for (let at = spoilt.indexOf(MARK); at >= 0; at = spoilt.indexOf(MARK, at)) spoilt[at]! ^= 1;
            return spoilt;
          },
        }
      : undefined;
}

const heal = (proxy: FaultProxy) => (proxy.decide = () => undefined);

describe('a processor with an input that cannot be read', () => {
  it('S80 goes on with its other partitions, tells which one rests and why, and goes on with that one when it can be read', async () => {
    await scene.createTopics(2);
    const { log, proxy } = await scene.faultyLog();
    spoil(proxy);
    await add(0);
    await add(0, ['mark', MARK]);
    await add(0);
    await add(1);
    const runner = scene.run({}, { log });
    await scene.seen({ 'key-0': ['1'], 'key-1': ['1'] });
    await eventually(() => expect(unreadable()).toMatchObject({ 0: expect.stringContaining('LOG_CORRUPT') }));
    await add(1);
    await scene.seen({ 'key-0': ['1'], 'key-1': ['1', '2'] });
    // After the first is through, the records of the spoilt batch still rest.
    expect(runner.health()).toMatchObject({ status: 'up', facts: { restarts: 0 } });
    expect(gauges()).toEqual({ 0: 1, 1: 0 });
    expect(scene.errors).toEqual([
      expect.stringMatching(
        `processor ${scene.name} cannot read partition 0, goes on .*LOG_CORRUPT: ${scene.input}-0 at`,
      ),
    ]);
    heal(proxy);
    await scene.seen({ 'key-0': ['1', '2', '3'], 'key-1': ['1', '2'] });
    await eventually(() => expect([unreadable(), gauges()]).toEqual([{}, { 0: 0, 1: 0 }]));
    expect(runner.health()).toMatchObject({ status: 'up', facts: { restarts: 0 } });

    function unreadable() {
      return runner.health().facts['unreadable'];
    }
    function gauges() {
      const found = runner.metrics().filter(({ name }) => name === 'headwater_processor_unreadable');
      return Object.fromEntries(found.map(({ labels, value }) => [labels['partition'], value]));
    }
  });

  it('S80 is down while it can read nothing, and up again by itself', async () => {
    await scene.createTopics(1);
    const { log, proxy } = await scene.faultyLog();
    spoil(proxy);
    await add(0, ['mark', MARK]);
    const runner = scene.run({}, { log });
    await eventually(() => expect(scene.errors).toHaveLength(1));
    await scene.status(runner, 'down');
    heal(proxy);
    await scene.status(runner, 'up');
    await scene.seen({ 'key-0': ['1'] });
  });
});
