import type { FaultLink, FrameFault } from './fault-link.js';
import { FaultRelay, type FaultControls, type ProxyTarget } from './fault-relay.js';
import { frameSplitter, readRequest, responseCorrelationId, type KafkaRequest } from './kafka-frames.js';

/** What happens to one request or its response. */
export interface Fault extends FrameFault {
  readonly at: 'request' | 'response';
}

export interface ProxiedRequest extends KafkaRequest {
  /** Counts the requests of all connections, from 0. */
  readonly n: number;
  /** Which of the proxy's targets it is for, by its place among them. */
  readonly target: number;
  /** The whole request, its length included. */
  readonly frame: Buffer;
}

export type Decide = (request: ProxiedRequest) => Fault | undefined;

export type StruckRequest = Fault & { readonly request: ProxiedRequest };

export interface FaultProxyOptions {
  /** The server, or the brokers of a cluster. */
  readonly target: ProxyTarget | readonly ProxyTarget[];
  /** Loopback ports to listen on, one per target; free ones by default. */
  readonly listen?: number | readonly number[];
  /** `kafka` sees requests and responses; `raw` only bytes. */
  readonly protocol: 'kafka' | 'raw';
  /** The first rule (kafka only); may be replaced at any time. */
  readonly decide?: Decide;
}

/**
 * A TCP proxy on loopback that loses, repeats, spoils, delays and cuts on demand. The client must connect through it: let the brokers
 * advertise its ports, or give `connect` to kafkaLog.
 */
export interface FaultProxy extends FaultControls<StruckRequest, Decide> {
  /** Where to connect for an address: a target's own port leads to the proxy's port in front of it, any other to the first one. */
  readonly connect: (host: string, port: number) => { host: string; port: number };
}

export async function faultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const targets = [options.target].flat();
  let n = 0;
  const relay = await new FaultRelay<StruckRequest, Decide>({
    targets,
    listen: [options.listen ?? []].flat(),
    decide: options.decide ?? (() => undefined),
    attach: (link, target, rule) =>
      options.protocol === 'raw'
        ? raw(link)
        : framed(link, (frame) => {
            const request = { ...readRequest(frame), n: n++, target, frame };
            const fault = rule()(request);
            return { request, struck: fault && { ...fault, request } };
          }),
  }).listen();
  const connect: FaultProxy['connect'] = (_host, port) => ({
    host: relay.host,
    port: relay.ports[targets.findIndex((target) => target.port === port)] ?? relay.port,
  });
  return Object.assign(relay, { connect });
}

interface Judged {
  readonly request: ProxiedRequest;
  readonly struck: StruckRequest | undefined;
}

function framed(link: FaultLink<StruckRequest>, judge: (frame: Buffer) => Judged): void {
  const planned = new Map<number, StruckRequest>();
  link.client.on(
    'data',
    frameSplitter((frame) => {
      const { request, struck } = judge(frame);
      if (struck?.at === 'response') planned.set(request.correlationId, struck);
      link.pass('server', frame, struck?.at === 'request' ? struck : undefined, request.correlationId);
    }),
  );
  link.server.on(
    'data',
    frameSplitter((frame) => {
      const correlationId = responseCorrelationId(frame);
      link.answered(correlationId);
      link.pass('client', frame, planned.get(correlationId));
      planned.delete(correlationId);
    }),
  );
}

function raw(link: FaultLink<StruckRequest>): void {
  link.client.on('data', (chunk: Buffer) => link.pass('server', chunk));
  link.server.on('data', (chunk: Buffer) => link.pass('client', chunk));
}
