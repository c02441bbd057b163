import { positionTopicOf, type Signal } from '@headwater/cdc';
import type { ExitCode, Invocation } from '../command.js';
import { UsageError } from '../usage.js';

const TYPED = 'headwater capture signal --config FILE';
const ACTS: Readonly<Record<string, 'pause' | 'resume' | 'stop'>> = {
  pause: 'pause',
  resume: 'resume',
  'stop-snapshot': 'stop',
};

/** Asks a capture, wherever it runs, through the WAL of its database. The request is done once, also by the capture's next process. */
export async function captureSignal(invocation: Invocation): Promise<ExitCode> {
  const { operands, flags, config, log, say } = invocation;
  const [, act = ''] = operands;
  if (operands.length !== 2 || (act !== 'snapshot' && ACTS[act] === undefined))
    throw new UsageError(
      [`capture signal ${operands.slice(1).join(' ')}: no such signal.`],
      `Type: ${TYPED} snapshot --tables TABLE[,TABLE] | pause | resume | stop-snapshot`,
    );
  const [{ captureSettings }, { sendSignal, snapshotSignal, unfinishedSnapshots }] = await Promise.all([
    import('../capture/capture-config.js'),
    import('@headwater/cdc'),
  ]);
  const all = captureSettings(config);
  const chosen = all.filter(({ name }) => flags['capture'] === undefined || name === flags['capture']);
  if (chosen.length !== 1)
    throw new UsageError(
      [`The file has ${all.length} captures: ${all.map(({ name }) => name).join(', ')}.`],
      `Type: ${TYPED} ${act} --capture ${all[0]!.name}`,
    );
  const capture = chosen[0]!;
  const positionTopic = capture.positionTopic ?? positionTopicOf(capture.name);
  const wanted = { ...capture, positionTopic, log: log() };
  let signal: Signal;
  if (act === 'snapshot') {
    const tables = tablesOf(
      flags['tables'],
      capture.tables.map(({ table }) => table),
    );
    signal = snapshotSignal({ tables, ...textFlag(flags, 'where'), ...textFlag(flags, 'id') });
  } else {
    const open = await unfinishedSnapshots(wanted);
    signal = { signal: ACTS[act]!, id: idOf(act, flags['id'], open) };
  }
  if (flags['dry-run'] === true) {
    say(
      { capture: capture.name, would: signal },
      `${capture.name}: would send ${JSON.stringify(signal)}. Nothing was sent.`,
    );
    return 0;
  }
  await sendSignal(wanted, signal);
  say(
    { capture: capture.name, sent: signal },
    `${capture.name}: ${act} of snapshot ${signal.id} is in the WAL; the capture does it when it comes there.`,
  );
  return 0;
}

function tablesOf(flag: unknown, known: readonly string[]): readonly string[] {
  const tables = typeof flag === 'string' ? flag.split(',').filter((table) => table !== '') : [];
  const next = `Type: ${TYPED} snapshot --tables ${known.join(',')}`;
  if (tables.length === 0) throw new UsageError(['capture signal snapshot needs tables.'], next);
  const unknown = tables.filter((table) => !known.includes(table));
  if (unknown.length > 0)
    throw new UsageError(
      unknown.map((table) => `${table} is not captured.`),
      next,
    );
  return tables;
}

function idOf(act: string, flag: unknown, open: readonly string[]): string {
  if (typeof flag === 'string') return flag;
  if (open.length === 1) return open[0]!;
  const mistake =
    open.length === 0 ? 'No snapshot is unfinished.' : `${open.length} snapshots are unfinished: ${open.join(', ')}.`;
  throw new UsageError([mistake], `Type: ${TYPED} ${act} --id ID`);
}

const textFlag = (flags: Invocation['flags'], name: 'where' | 'id'): { where?: string; id?: string } =>
  typeof flags[name] === 'string' ? { [name]: flags[name] } : {};
