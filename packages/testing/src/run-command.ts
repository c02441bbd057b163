import { execFile } from 'node:child_process';

export interface CommandResult {
  /** `undefined` when the program could not be started at all. */
  readonly exitCode: number | undefined;
  readonly output: string;
}

/** Runs a program to its end; never rejects, and returns both of its streams as one text. */
export function runCommand(
  command: string,
  args: readonly string[],
  options: {
    readonly env?: NodeJS.ProcessEnv;
    readonly cwd?: string;
    readonly uid?: number;
    readonly gid?: number;
  } = {},
): Promise<CommandResult> {
  return new Promise((resolve) => {
    execFile(command, args, { ...options, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      const output = `${stdout}${stderr}`.trim();
      if (!error) resolve({ exitCode: 0, output });
      else if (typeof error.code === 'number') resolve({ exitCode: error.code, output });
      else resolve({ exitCode: error.signal ? 1 : undefined, output: output || error.message });
    });
  });
}
