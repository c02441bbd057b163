import type { ServerHandle } from './server-process.js';
import { ServicesError } from './testing.errors.js';

interface ContainerOptions {
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  readonly settings?: Readonly<Record<string, string>>;
}

export function startPostgresContainer(options: ContainerOptions): Promise<{ url: string; server: ServerHandle }> {
  return Promise.reject(new ServicesError('SERVICES_UNAVAILABLE', `No containers yet for ${options.directory}.`));
}

export function startKafkaContainer(options: ContainerOptions): Promise<{ brokers: string[]; server: ServerHandle }> {
  return Promise.reject(new ServicesError('SERVICES_UNAVAILABLE', `No containers yet for ${options.directory}.`));
}
