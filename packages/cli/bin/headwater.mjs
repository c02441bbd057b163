#!/usr/bin/env node
import { createInterface } from 'node:readline/promises';
import { main } from '../dist/main.js';

process.exitCode = await main(process.argv.slice(2), {
  env: process.env,
  out: (text) => process.stdout.write(`${text}\n`),
  err: (text) => process.stderr.write(`${text}\n`),
  stop() {
    const asked = new AbortController();
    for (const signal of ['SIGTERM', 'SIGINT']) {
      // Asked twice: whoever asks does not want to wait for the drain.
      process.on(signal, () => (asked.signal.aborted ? process.exit(130) : asked.abort()));
    }
    return asked.signal;
  },
  async ask(question) {
    if (!process.stdin.isTTY) return true;
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await lines.question(`${question} (yes/no) `);
    lines.close();
    return /^y(es)?$/i.test(answer.trim());
  },
});
