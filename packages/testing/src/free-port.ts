import { createServer } from 'node:net';

/** A loopback port that nobody listens on now; `preferred` when it is free. Kept by nobody until the server takes it. */
export async function freePort(preferred?: number): Promise<number> {
  if (preferred !== undefined && (await listens(preferred)) !== undefined) return preferred;
  const port = await listens(0);
  if (port === undefined) throw new Error('No free port on 127.0.0.1.');
  return port;
}

/** Several different free ports, each the preferred one when it is free. */
export async function freePorts(preferred: readonly (number | undefined)[]): Promise<number[]> {
  const ports: number[] = [];
  for (const wanted of preferred) {
    let port = await freePort(wanted);
    while (ports.includes(port)) port = await freePort();
    ports.push(port);
  }
  return ports;
}

function listens(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen(port, '127.0.0.1', () => {
      const address = server.address();
      const taken = typeof address === 'object' && address ? address.port : undefined;
      server.close(() => resolve(taken));
    });
  });
}
