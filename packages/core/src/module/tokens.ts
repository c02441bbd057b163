import type { MessageClass } from '../model/model.js';

/** Token of the resolved options. */
export const HEADWATER_OPTIONS = Symbol('headwater:options');

/** The classes of one `forFeature`. */
export class FeatureSet {
  constructor(readonly classes: readonly MessageClass[]) {}
}
