import {
  Module,
  type DynamicModule,
  type InjectionToken,
  type OptionalFactoryDependency,
  type Provider,
  type Type,
} from '@nestjs/common';
import { DiscoveryModule } from '@nestjs/core';
import { Database } from '../postgres/database.js';
import { HeadwaterRuntime } from './headwater.runtime.js';
import type { HeadwaterOptions } from './options.js';
import { FeatureSet, HEADWATER_OPTIONS } from './tokens.js';
import { modelOf } from '../model/model.js';

export interface HeadwaterAsyncOptions {
  readonly inject?: readonly (InjectionToken | OptionalFactoryDependency)[];
  readonly useFactory: (...dependencies: never[]) => HeadwaterOptions | Promise<HeadwaterOptions>;
}

let featureSets = 0;

/** `forRoot` once, `forFeature` per Nest module. The engines start with the application and stop with its shutdown hooks. */
@Module({})
export class HeadwaterModule {
  static forRoot(options: HeadwaterOptions): DynamicModule {
    return HeadwaterModule.forRootAsync({ useFactory: () => options });
  }

  static forRootAsync(options: HeadwaterAsyncOptions): DynamicModule {
    return {
      module: HeadwaterModule,
      global: true,
      imports: [DiscoveryModule],
      providers: [
        {
          provide: HEADWATER_OPTIONS,
          inject: [...(options.inject ?? [])],
          useFactory: options.useFactory as (...all: unknown[]) => HeadwaterOptions,
        },
        {
          provide: Database,
          inject: [HEADWATER_OPTIONS],
          useFactory: (resolved: HeadwaterOptions) => new Database(resolved.databaseUrl),
        },
        HeadwaterRuntime,
      ],
      exports: [Database, HeadwaterRuntime, HEADWATER_OPTIONS],
    };
  }

  /** Declares models (changelogs, events, commands) and handlers (projections, sagas, participants); handlers become providers. */
  static forFeature(
    classes: readonly Type[],
    options: { readonly imports?: DynamicModule['imports'] } = {},
  ): DynamicModule {
    const handlers: Provider[] = classes.filter((type) => modelOf(type) === undefined);
    return {
      module: class HeadwaterFeatureModule {},
      imports: options.imports ?? [],
      providers: [
        ...handlers,
        { provide: Symbol(`headwater:features:${featureSets++}`), useValue: new FeatureSet(classes) },
      ],
      exports: handlers as Type[],
    };
  }
}
