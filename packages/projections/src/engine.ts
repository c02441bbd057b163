import {
  ApplyRunner,
  Frontier,
  awaitToken,
  compacted,
  handlersOf,
  modelOf,
  topicsOf,
  type ApplyDefinition,
  type Engine,
  type EngineContext,
  type Features,
  type MessageClass,
  type Running,
  type Sql,
  type WalToken,
} from '@headwater/core';
import { applyProjection } from './apply-projection.js';
import { consumerOf, keyColumns, projectionOf, tableOf, type ProjectionOptions } from './projection.js';
import { createTable } from './table.js';

export interface ProjectionsOptions {
  /** The position topic of the capture that feeds the topics; without it, tokens cannot be waited for. */
  readonly positionTopic?: string;
}

/** Keeps every `@Projection` of the application up to date. Role `projections`. */
export function projections(options: ProjectionsOptions = {}): Engine {
  return {
    name: 'projections',
    plan(features) {
      const found = features.classes.flatMap((type) => {
        const projection = projectionOf(type);
        return projection === undefined ? [] : [{ type, projection }];
      });
      return {
        mistakes: [
          ...duplicates(found),
          ...found.flatMap(({ type, projection }) => mistakesOf(type, projection, features)),
        ],
        topics: options.positionTopic === undefined ? [] : [{ ...compacted(options.positionTopic), partitions: 1 }],
        ddl: found.flatMap(({ projection }) => createTable(projection)),
        parts: found.map(({ type, projection }) => ({
          role: 'projections',
          start: async (context) =>
            startConsumer(
              context,
              applyProjection(type, features.instanceOf(type)!, projection),
              options.positionTopic,
            ),
        })),
      };
    },
  };
}

/** Runs one apply definition, with a frontier beside it when a capture's position can be followed. */
function startConsumer<P>(
  context: EngineContext,
  definition: ApplyDefinition<P>,
  positionTopic: string | undefined,
): Running[] {
  const runner = new ApplyRunner(definition, context);
  if (positionTopic === undefined) return [runner];
  return [
    runner,
    new Frontier({ ...context, consumer: definition.consumer, topics: definition.topics, positionTopic }),
  ];
}

/** Waits until the projection contains the write that `token` was given for. Throws PROJECTION_BEHIND after `timeoutMs` (default 5,000). */
export async function awaitProjection(
  sql: Sql,
  type: MessageClass,
  token: WalToken,
  timeoutMs?: number,
): Promise<void> {
  await awaitToken(sql, consumerOf(projectionOf(type)!), token, timeoutMs);
}

/** The table of a projection, quoted by neither side: letters, digits and underscores only. */
export function projectionTable(type: MessageClass): string {
  return tableOf(projectionOf(type)!);
}

function duplicates(found: readonly { type: MessageClass; projection: ProjectionOptions }[]): string[] {
  const names = new Map<string, string>();
  return found.flatMap(({ type, projection }) => {
    const id = consumerOf(projection);
    const other = names.get(id);
    names.set(id, type.name);
    return other === undefined
      ? []
      : [
          `Projections ${other} and ${type.name} are both "${projection.name}" version ${projection.version}. Give one another name.`,
        ];
  });
}

function mistakesOf(type: MessageClass, projection: ProjectionOptions, features: Features): string[] {
  const mistakes: string[] = [];
  if (!/^[a-z][a-z0-9_]{0,48}$/.test(projection.name))
    mistakes.push(
      `Projection ${type.name}: name "${projection.name}" must be lower-case letters, digits and underscores.`,
    );
  if (handlersOf(type).length === 0)
    mistakes.push(`Projection ${type.name} has no @On(…) method. Add one, or remove the class.`);
  for (const column of keyColumns(projection)) {
    if (!(column in projection.columns))
      mistakes.push(`Projection ${type.name}: key column ${column} is not among its columns. Add it.`);
  }
  for (const on of handlersOf(type)) {
    const model = modelOf(on.type);
    if (model === undefined)
      mistakes.push(
        `Projection ${type.name}.${on.method}: ${on.type.name} has no @Changelog or @Event, so its topic is unknown. Decorate it.`,
      );
    else if (!features.classes.includes(on.type))
      mistakes.push(
        `Projection ${type.name}.${on.method}: topic ${model.topic} is unknown. Add ${on.type.name} to a forFeature([...]).`,
      );
  }
  if (features.instanceOf(type) === undefined && topicsOf(type).length > 0)
    mistakes.push(`Projection ${type.name} is not a provider. Pass it to HeadwaterModule.forFeature([...]).`);
  return mistakes;
}
