import { request } from 'node:http';

/** True when a Docker engine answers a ping on DOCKER_HOST or the usual socket within a second. */
export function containerEngine(env: NodeJS.ProcessEnv): Promise<boolean> {
  const host = env['DOCKER_HOST'] || 'unix:///var/run/docker.sock';
  const target = host.startsWith('unix://')
    ? { socketPath: host.slice('unix://'.length) }
    : { host: new URL(host).hostname, port: Number(new URL(host).port || 2375) };
  return new Promise((resolve) => {
    const ping = request({ ...target, path: '/_ping', timeout: 1000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    ping.on('timeout', () => ping.destroy(new Error('timeout')));
    ping.on('error', () => resolve(false));
    ping.end();
  });
}
