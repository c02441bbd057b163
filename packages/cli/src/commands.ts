import type { Command } from './command.js';
import { capture } from './commands/capture.js';
import { doctor } from './commands/doctor.js';
import { drop } from './commands/drop.js';
import { groups } from './commands/groups.js';
import { parked } from './commands/parked.js';
import { topics } from './commands/topics.js';
import { transactions } from './commands/transactions.js';

export const commands: readonly Command[] = [capture, doctor, drop, groups, parked, topics, transactions];
