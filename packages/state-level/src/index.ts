export { levelState } from './level-state.js';
export type { LevelStateOptions } from './level-state.js';
