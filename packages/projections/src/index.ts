export { awaitProjection, projectionTable, projections } from './engine.js';
export type { ProjectionsOptions } from './engine.js';
export { On } from '@headwater/core';
export type { Change } from '@headwater/core';
export { Projection, row } from './projection.js';
export type { ProjectionOptions, Row } from './projection.js';
