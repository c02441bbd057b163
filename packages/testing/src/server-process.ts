import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { endOrphan, endProcess, writePidFile } from './pid-file.js';
import { childrenOf, identify, type ProcessIdentity } from './process-identity.js';
import { ServicesError } from './testing.errors.js';

/** A server of the development services. For external servers only `port` is filled and stop() does nothing. */
export interface ServerHandle {
  readonly pid: number | undefined;
  readonly port: number;
  /** Clean stop; may be called twice. */
  stop(): Promise<void>;
  /** SIGKILL, as a crash would: nothing is flushed. Resolves when the process is gone. */
  kill(): Promise<void>;
  /** Starts it again on the same data and port; resolves when it serves. No-op while it runs. */
  start(): Promise<void>;
}

export interface ServerSpec {
  readonly name: string;
  readonly port: number;
  readonly pidFile: string;
  readonly logFile: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly uid?: number;
  readonly gid?: number;
  readonly stopSignal: NodeJS.Signals;
  readonly startTimeoutMs: number;
  /** True when the server takes requests; asked again until then. */
  readonly ready: () => Promise<boolean>;
}

/** One child process under a pid file. It dies with its parent where the system can arrange that (Linux). */
export class ServerProcess implements ServerHandle {
  private child: ChildProcess | undefined;
  private identity: ProcessIdentity | undefined;
  private paused = false;

  constructor(private readonly spec: ServerSpec) {}

  get pid(): number | undefined {
    return this.identity?.pid;
  }

  get port(): number {
    return this.spec.port;
  }

  async start(): Promise<void> {
    if (this.child && this.child.exitCode === null && this.child.signalCode === null) return;
    const { spec } = this;
    await endOrphan(spec.pidFile, { signal: spec.stopSignal });
    const log = openSync(spec.logFile, 'a');
    const [command, args] = boundToParent(spec);
    // Detached: a Ctrl-C in the terminal must reach only the parent, which drains before it stops the servers.
    const child = spawn(command, args, {
      env: spec.env,
      uid: spec.uid,
      gid: spec.gid,
      detached: true,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    let failed: Error | undefined;
    child.once('error', (error) => (failed = error));
    this.child = child;
    if (child.pid !== undefined) {
      writePidFile(spec.pidFile, child.pid);
      this.identity = identify(child.pid);
    }
    const deadline = performance.now() + spec.startTimeoutMs;
    while (!(await spec.ready())) {
      const ended = failed !== undefined || child.exitCode !== null || child.signalCode !== null;
      if (!ended && performance.now() < deadline) {
        await delay(20);
        continue;
      }
      const why = ended
        ? (failed?.message ?? `it ended with ${child.exitCode ?? child.signalCode}`)
        : `it did not answer on 127.0.0.1:${spec.port} within ${spec.startTimeoutMs} ms`;
      await this.kill();
      throw new ServicesError(
        'SERVICES_START_FAILED',
        `${spec.name} did not start: ${why}. Log: ${spec.logFile}\n${lastLines(spec.logFile)}`,
        { cause: failed },
      );
    }
    child.unref();
  }

  /** SIGSTOP: it keeps its connections and says nothing. */
  pause(): void {
    if (this.identity) process.kill(this.identity.pid, 'SIGSTOP');
    this.paused = true;
  }

  /** SIGCONT. */
  resume(): void {
    if (this.identity) process.kill(this.identity.pid, 'SIGCONT');
    this.paused = false;
  }

  /** Started and not paused. */
  get awake(): boolean {
    return this.identity !== undefined && !this.paused;
  }

  async stop(): Promise<void> {
    if (!this.identity) return;
    if (this.paused) this.resume();
    this.child?.ref();
    await endProcess(this.identity, { signal: this.spec.stopSignal, graceMs: 15_000 });
    this.forget();
  }

  async kill(): Promise<void> {
    if (!this.identity) return;
    // Children too: a surviving Postgres backend holds the shared memory and would refuse the restart.
    const family = [this.identity.pid, ...childrenOf(this.identity.pid)].flatMap((pid) => identify(pid) ?? []);
    this.child?.ref();
    await Promise.all(family.map((one) => endProcess(one, { signal: 'SIGKILL', graceMs: 0 })));
    this.forget();
  }

  private forget(): void {
    rmSync(this.spec.pidFile, { force: true });
    this.child = undefined;
    this.identity = undefined;
    this.paused = false;
  }
}

const SETPRIV = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));

/** Lets the kernel signal the server when this process dies, however it dies. setpriv keeps the pid. */
function boundToParent(spec: ServerSpec): [string, string[]] {
  if (process.platform !== 'linux' || !SETPRIV) return [spec.command, [...spec.args]];
  return [SETPRIV, ['--pdeathsig', spec.stopSignal.replace('SIG', ''), '--', spec.command, ...spec.args]];
}

function lastLines(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-15).join('\n') : '';
}
