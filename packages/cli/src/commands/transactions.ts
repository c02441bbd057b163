import type { Log, OpenTransaction } from '@headwater/core';
import type { Command, ExitCode, Invocation } from '../command.js';
import { UsageError } from '../usage.js';

const OLDER_THAN_S = 60;
/** Kafka's default of transaction.max.timeout.ms: a coordinator ends by itself what is older. */
const HANGS_AFTER_S = 900;

export const transactions: Command = {
  name: 'transactions',
  usage: [
    [
      'transactions list TOPIC [--older-than SECONDS]',
      'what holds back committed reads: open for longer than a minute',
    ],
    [
      'transactions abort TOPIC PARTITION OFFSET [--older-than SECONDS] --yes',
      'ends the one that begins there, and fences its writer; one without a coordinator after 15 minutes',
    ],
  ],
  flags: { 'older-than': { type: 'string' } },
  run(invocation) {
    const [act = '', topic] = invocation.operands;
    if (topic === undefined || (act !== 'list' && act !== 'abort'))
      throw new UsageError(
        [`transactions ${act}: act or topic is missing.`],
        'Type: headwater transactions list TOPIC',
      );
    return act === 'list' ? list(invocation, topic) : abort(invocation, topic);
  },
};

async function list({ log, say, flags }: Invocation, topic: string): Promise<ExitCode> {
  const seconds = secondsOf(flags, OLDER_THAN_S);
  const open = await log().admin.openTransactions(topic, seconds * 1_000);
  const none = `No transaction on ${topic} has been open for longer than ${seconds} s.`;
  say(open.map(plain), open.length === 0 ? none : open.map(line).join('\n'));
  return 0;
}

async function abort({ log, say, flags, operands }: Invocation, topic: string): Promise<ExitCode> {
  const [, , partition = '', offset = ''] = operands;
  const typed = `headwater transactions abort ${topic} ${partition || 'PARTITION'} ${offset || 'OFFSET'}`;
  if (!/^\d+$/.test(partition) || !/^\d+$/.test(offset))
    throw new UsageError(
      ['transactions abort needs the partition and the offset at which the transaction begins.'],
      `Type: headwater transactions list ${topic}, which names them; then ${typed} --yes`,
    );
  const seconds = secondsOf(flags, HANGS_AFTER_S);
  const found = (await log().admin.openTransactions(topic, 0)).find(
    (one) => one.partition === Number(partition) && one.firstOffset === Number(offset),
  );
  if (found === undefined) {
    say({ over: false }, `No open transaction begins at ${topic}-${partition}, offset ${offset}. Nothing was changed.`);
    return 1;
  }
  if (found.transactionalId === undefined && !(await isOlder(log(), found, seconds))) {
    const why = `No coordinator knows it, and its last record is younger than ${seconds} s: ending it on its partition alone would tear what may yet be committed.`;
    say({ over: false, ...plain(found) }, `${line(found)}\n${why} Wait, or type: ${typed} --older-than 0 --yes`);
    return 1;
  }
  if (flags['dry-run'] === true) {
    say({ would: 'abort', ...plain(found) }, `Would abort ${line(found)}. Nothing was changed.`);
    return 0;
  }
  if (flags['yes'] !== true)
    throw new UsageError(
      [`transactions abort ends the work of ${found.transactionalId ?? 'a writer that no coordinator knows'}.`],
      `Type: ${typed} --yes, or --dry-run.`,
    );
  await log().admin.abortOpenTransaction(found);
  say({ over: true, ...plain(found) }, `Over: ${line(found)}\nAborted, unless its writer had begun to commit it.`);
  return 0;
}

function secondsOf(flags: Invocation['flags'], unless: number): number {
  const given = flags['older-than'] as string | undefined;
  const seconds = Number(given ?? unless);
  if (given?.trim() !== '' && seconds >= 0) return seconds;
  throw new UsageError([`--older-than ${given} is no number of seconds.`], 'Type: --older-than 60');
}

async function isOlder(
  log: Log,
  { topic, partition, firstOffset }: OpenTransaction,
  seconds: number,
): Promise<boolean> {
  const older = await log.admin.openTransactions(topic, seconds * 1_000);
  return older.some((one) => one.partition === partition && one.firstOffset === firstOffset);
}

function line(open: OpenTransaction): string {
  const { topic, partition, firstOffset, producerId, epoch, transactionalId, startedAtMs } = open;
  const whose =
    transactionalId === undefined
      ? 'of no coordinator: it hangs'
      : `of ${transactionalId}, since ${new Date(startedAtMs!).toISOString()}`;
  return `${topic}-${partition}, offset ${firstOffset}: ${whose} (producer ${producerId}, epoch ${epoch})`;
}

const plain = ({ producerId, ...open }: OpenTransaction) => ({ ...open, producerId: String(producerId) });
