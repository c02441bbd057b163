#!/usr/bin/env node
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
});
