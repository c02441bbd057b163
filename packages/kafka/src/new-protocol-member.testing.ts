import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { ByteReader, ByteWriter } from './bytes.js';

const CONSUMER_GROUP_HEARTBEAT = 68;

export interface NewProtocolAnswer {
  readonly error: number;
  readonly message: string | null;
  readonly memberEpoch: number;
}

/** A consumer of the KIP-848 protocol as far as joining goes: what a Java consumer with group.protocol=consumer sends first. */
export class NewProtocolMember {
  readonly #socket: net.Socket;
  readonly #groupId: string;
  readonly #topics: readonly string[];
  readonly #memberId = randomUUID();

  private constructor(socket: net.Socket, groupId: string, topics: readonly string[]) {
    this.#socket = socket;
    this.#groupId = groupId;
    this.#topics = topics;
  }

  static async connect(broker: string, groupId: string, topics: readonly string[]): Promise<NewProtocolMember> {
    const [host, port] = broker.split(':');
    const socket = net.connect(Number(port), host);
    await once(socket, 'connect');
    socket.unref();
    return new NewProtocolMember(socket, groupId, topics);
  }

  async join(): Promise<NewProtocolAnswer> {
    return this.#heartbeat(0);
  }

  async leave(): Promise<void> {
    await this.#heartbeat(-1);
    this.#socket.destroy();
  }

  async #heartbeat(memberEpoch: number): Promise<NewProtocolAnswer> {
    const request = new ByteWriter().int16(CONSUMER_GROUP_HEARTBEAT).int16(0).int32(1).string('new-protocol').tags();
    request.compactString(this.#groupId).compactString(this.#memberId).int32(memberEpoch);
    request
      .compactString(null)
      .compactString(null)
      .int32(memberEpoch === 0 ? 5_000 : -1); // instance, rack, rebalance
    if (memberEpoch === 0) request.compactArray(this.#topics, (topic) => request.compactString(topic));
    else request.uvarint(0);
    request.compactString(null); // server assignor
    if (memberEpoch === 0) request.compactArray([], () => undefined);
    else request.uvarint(0);
    this.#socket.write(new ByteWriter().bytes(request.tags().done()).done());
    const [frame] = (await once(this.#socket, 'data')) as [Buffer];
    const answer = new ByteReader(frame, 8);
    answer.tags();
    answer.int32(); // throttle time
    const error = answer.int16();
    const message = answer.compactString();
    answer.compactString();
    return { error, message, memberEpoch: answer.int32() };
  }
}
