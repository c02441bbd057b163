import { readFileSync } from 'node:fs';
import {
  controlParked,
  headerText,
  listParked,
  nameOfUnit,
  showParked,
  type Controlled,
  type ParkedAct,
  type ParkedSequence,
  type ParkedUnit,
} from '@headwater/core';
import type { Command, ExitCode, Invocation } from '../command.js';
import { UsageError } from '../usage.js';

const CHANGES = ['retry', 'discard', 'edit'];

export const parked: Command = {
  name: 'parked',
  usage: [
    ['parked list PROCESSOR', 'what a processor, or the capture cdc.NAME, has set aside, by key'],
    ['parked show PROCESSOR KEY', 'every record of a key, in order, with why it is there'],
    ['parked retry PROCESSOR KEY --reason TEXT --yes', 'handles them again, up to the first that fails again'],
    ['parked discard PROCESSOR KEY [--all] --reason TEXT --yes', 'drops the first, or all of them'],
    ['parked edit PROCESSOR KEY --value-file FILE --reason TEXT --yes', 'gives the first another value, then retries'],
  ],
  flags: { all: { type: 'boolean' }, value: { type: 'string' }, 'value-file': { type: 'string' } },
  async run(invocation) {
    const [act = '', processor, key] = invocation.operands;
    if (processor === undefined || !['list', 'show', ...CHANGES].includes(act))
      throw new UsageError([`parked ${act}: act or processor is missing.`], 'Type: headwater parked list PROCESSOR');
    if (act === 'list') return list(invocation, processor);
    if (key === undefined)
      throw new UsageError(
        [`parked ${act} needs a key.`],
        `Type: headwater parked list ${processor}, which names them.`,
      );
    return act === 'show' ? show(invocation, processor, key) : change(invocation, act, processor, key);
  },
};

async function list({ log, say }: Invocation, processor: string): Promise<ExitCode> {
  const sequences = await listParked(log(), processor);
  const text = sequences.map(
    (one) => `${nameOf(one)}  ${one.units.length} parked on partition ${one.partition}  ${why(one.units[0]!)}`,
  );
  say(
    sequences.map(({ units, ...one }) => ({ ...one, count: units.length, first: plain(units[0]!) })),
    text.length === 0 ? `${processor} has nothing parked.` : text.join('\n'),
  );
  return 0;
}

async function show({ log, say }: Invocation, processor: string, key: string): Promise<ExitCode> {
  const sequence = await showParked(log(), processor, key);
  const lines = sequence.units.map((unit) => `${placeOf(unit)}  ${why(unit)}\n  ${valueText(unit)}`);
  say({ ...sequence, units: sequence.units.map(plain) }, lines.join('\n'));
  return 0;
}

async function change(invocation: Invocation, act: string, processor: string, key: string): Promise<ExitCode> {
  const { flags, log, say, by } = invocation;
  const typed = `headwater parked ${act} ${processor} ${JSON.stringify(key)}`;
  const reason = (flags['reason'] as string | undefined) ?? '';
  if (reason.trim() === '')
    throw new UsageError([`parked ${act} needs a reason: it is kept.`], `Type: ${typed} --reason "…" --yes`);
  const wanted = actOf(act, flags, typed);
  const sequence = await showParked(log(), processor, key);
  if (flags['dry-run'] === true) {
    say(
      { would: act, ...plainSequence(sequence) },
      `Would ${act} ${nameOf(sequence)}: ${sequence.units.length} parked. Nothing was changed.`,
    );
    return 0;
  }
  if (flags['yes'] !== true)
    throw new UsageError(
      [`parked ${act} changes ${nameOf(sequence)}.`],
      `Type: ${typed} --reason "…" --yes, or --dry-run.`,
    );
  const result = await controlParked(log(), { processor, sequence: sequence.sequence, act: wanted, reason, by });
  say({ act, ...plainSequence(sequence), ...result }, resultText(result, processor, key));
  return result.outcome === 'done' ? 0 : 1;
}

function actOf(act: string, flags: Invocation['flags'], typed: string): ParkedAct {
  if (act === 'retry') return { act };
  if (act === 'discard') return { act, all: flags['all'] === true };
  const [text, file] = [flags['value'], flags['value-file']];
  if (typeof text === 'string') return { act: 'edit', value: Buffer.from(text) };
  if (typeof file === 'string') return { act: 'edit', value: readFileSync(file) };
  throw new UsageError(
    ['parked edit needs a value.'],
    `Type: ${typed} --value-file FILE (or --value TEXT) --reason "…" --yes`,
  );
}

function resultText(result: Controlled, processor: string, key: string): string {
  if (result.outcome === 'waiting')
    return `The order is in the log; no instance of ${processor} has carried it out yet. Start one; then type: headwater parked list ${processor}`;
  const { outcome, handled, dropped, left, detail } = result;
  const counts = `${handled} handled, ${dropped} dropped, ${left} left`;
  if (outcome === 'done') return `Done: ${counts}.`;
  return `${outcome === 'parked' ? 'Failed again' : 'Refused'}: ${counts}. ${detail ?? ''}\nType: headwater parked show ${processor} ${JSON.stringify(key)}`;
}

/** Of a capture the key alone does not tell the topic. */
const nameOf = ({ processor, key, sequence }: ParkedSequence): string =>
  processor.startsWith('cdc.') ? sequence : (key ?? sequence);
const why = ({ code, reason }: ParkedUnit): string => (reason.startsWith(code) ? reason : `${code}: ${reason}`);
const plainSequence = ({ processor, partition, sequence, key }: ParkedSequence) => ({
  processor,
  partition,
  sequence,
  key,
});

/** Where a captured change stands in its source; undefined of anything else. */
function sourceOf({ unit }: ParkedUnit) {
  const of = (name: string) => ('record' in unit ? headerText(unit.record.headers, name) : undefined);
  const [lsn, seq] = [of('hw_lsn'), of('hw_seq')];
  if (lsn === undefined || ('record' in unit && unit.record.offset >= 0)) return undefined;
  return { op: of('hw_op'), table: of('hw_table'), lsn, tx: of('hw_tx'), seq: Number(seq) };
}

function placeOf(parked: ParkedUnit): string {
  const source = sourceOf(parked);
  if (source === undefined) return nameOfUnit(parked.unit);
  const { op, table, lsn, tx, seq } = source;
  return `${op ?? 'message'}${table === undefined ? '' : ` of ${table}`} at ${lsn} (transaction ${tx}, ${seq})`;
}

/** Bytes as text where they are text, as base64 where not. */
function plain(parked: ParkedUnit) {
  const { unit, code, reason, bare } = parked;
  if ('timer' in unit) return { timer: unit.timer, code, reason };
  const { topic, partition, offset, timestamp, value } = unit.record;
  const source = sourceOf(parked);
  if (source !== undefined)
    return { topic, timestamp, source, code, reason, ...(bare ? { value: 'omitted' } : textOf(value)) };
  return { topic, partition, offset, timestamp, code, reason, ...(bare ? { value: 'omitted' } : textOf(value)) };
}

function textOf(value: Buffer | null): { readonly value: string | null } | { readonly base64: string } {
  if (value === null) return { value };
  const text = value.toString('utf8');
  return Buffer.from(text).equals(value) ? { value: text } : { base64: value.toString('base64') };
}

function valueText({ unit, bare }: ParkedUnit): string {
  if ('timer' in unit) return `timer of ${new Date(unit.timer.atMs).toISOString()}`;
  if (bare) return 'value omitted: it was too large';
  const shown = textOf(unit.record.value);
  return 'base64' in shown ? `base64 ${shown.base64}` : (shown.value ?? 'tombstone');
}
