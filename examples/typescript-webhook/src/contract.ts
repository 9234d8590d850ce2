// The types of wit/publisher.wit, as StarlingMonkey has them: a u64 is a bigint, an option may be undefined, and a result is
// returned, or its error thrown.

export interface Recorded {
  wrappedEvent: WrappedEvent;
  streamId: { id: string; name?: string; category?: string };
  position: bigint;
  tenantId: string;
  attempt: number;
}

export interface WrappedEvent {
  uuid: string;
  name: string;
  version?: bigint;
  createdAt: string;
  data: Payload;
  context: string;
}

export type Payload = { tag: "json"; val: string } | { tag: "binary"; val: { contentType: string; bytes: Uint8Array } };

export type PublishError =
  | { tag: "retryable"; val: Failure }
  | { tag: "rejected"; val: string }
  | { tag: "unavailable"; val: Failure };

export interface Failure {
  reason: string;
  retryAfterMs?: number;
}
