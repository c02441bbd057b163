import type { Command } from './command.js';
import { capture } from './commands/capture.js';
import { parked } from './commands/parked.js';
import { topics } from './commands/topics.js';

export const commands: readonly Command[] = [capture, parked, topics];
