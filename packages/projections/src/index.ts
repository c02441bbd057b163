export { awaitProjection, projectionTable, projections } from './engine.js';
export type { ProjectionsOptions } from './engine.js';
export { On, Projection, row } from './projection.js';
export type { Change, ProjectionOptions, Row } from './projection.js';
