// One POST over wasi:http. `fetch` would do as well, but for one thing: it does not tell what a request failed over, and
// whether it is the event that is to blame depends on that. A function of WIT that answers with an error throws it here, as the
// `payload` of an Error. What is opened is disposed of, children before their parents.

import type { Answer } from "./answer.js";
import type { PublishError } from "./contract.js";
import type { Destination } from "./destination.js";
import { handle } from "wasi:http/outgoing-handler@0.2.12";
import {
  Fields, type FutureIncomingResponse, IncomingBody, type IncomingResponse, OutgoingBody, OutgoingRequest, RequestOptions,
} from "wasi:http/types@0.2.12";

const TIMEOUT_NS = 10_000_000_000n;
/** Of a stream, so much can be written at once. */
const CHUNK_BYTES = 4096;
/** Of a response's body, so much is read, since it goes into an error's reason. */
const BODY_KEPT_BYTES = 500;
/** What fails before anything is sent: the name is unknown, the destination refuses the connection, ... */
const UNSENT = [
  "DNS-timeout", "DNS-error", "destination-not-found", "destination-unavailable", "destination-IP-unroutable",
  "connection-refused", "connection-timeout", "connection-limit-reached", "TLS-protocol-error", "TLS-certificate-error",
  "TLS-alert-received", "HTTP-request-URI-invalid", "configuration-error",
];

/** Posts `body`, and waits for the whole response. */
export function post(destination: Destination, headers: Record<string, string>, body: string): Answer {
  try {
    const bytes = new TextEncoder().encode(body);
    const request = newRequest(destination.url, { ...headers, "content-length": String(bytes.length) });
    const outgoing = request.body();
    const future = handle(request, options());
    try {
      // A server may answer, and hang up, before it has read everything: its answer counts, not the broken pipe.
      const broken = write(outgoing, bytes);
      wait(future);
      const answer = future.get()?.val;
      if (answer?.tag === "err") throw answer.val;
      if (answer?.tag !== "ok") throw broken ?? "the response is gone";
      return read(answer.val);
    } finally {
      future[Symbol.dispose]();
    }
  } catch (thrown) {
    throw toError(destination.shown, payload(thrown));
  }
}

function newRequest(url: URL, headers: Record<string, string>): OutgoingRequest {
  const encoder = new TextEncoder();
  const fields = Object.entries(headers).map(([name, value]): [string, Uint8Array] => [name, encoder.encode(value)]);
  const request = new OutgoingRequest(Fields.fromList(fields));
  request.setMethod({ tag: "post" });
  request.setScheme({ tag: url.protocol === "https:" ? "HTTPS" : "HTTP" });
  request.setAuthority(url.host);
  request.setPathWithQuery(url.pathname + url.search);
  return request;
}

function options(): RequestOptions {
  const options = new RequestOptions();
  options.setConnectTimeout(TIMEOUT_NS);
  options.setFirstByteTimeout(TIMEOUT_NS);
  options.setBetweenBytesTimeout(TIMEOUT_NS);
  return options;
}

function wait(future: FutureIncomingResponse): void {
  const answered = future.subscribe();
  answered.block();
  answered[Symbol.dispose]();
}

/** Writes and finishes a body; answers with the error where it broke off. */
function write(outgoing: OutgoingBody, bytes: Uint8Array): unknown {
  try {
    const stream = outgoing.write();
    try {
      for (let start = 0; start < bytes.length; start += CHUNK_BYTES) {
        stream.blockingWriteAndFlush(bytes.subarray(start, start + CHUNK_BYTES));
      }
    } finally {
      stream[Symbol.dispose](); // a body is finished only when nothing can write to it any more
    }
    OutgoingBody.finish(outgoing, undefined);
    return undefined;
  } catch (thrown) {
    return thrown;
  }
}

function read(response: IncomingResponse): Answer {
  const status = response.status();
  const headers = response.headers();
  const [retryAfter] = headers.get("retry-after").map((value) => new TextDecoder().decode(value));
  headers[Symbol.dispose]();
  // What is published needs no reason, and a body without an end takes nothing from it.
  const body = status >= 200 && status < 300 ? "" : beginningOfBody(response);
  response[Symbol.dispose]();
  return { status, retryAfter, body };
}

/** The status is the answer: a body that breaks off takes nothing from it. */
function beginningOfBody(response: IncomingResponse): string {
  const kept: number[] = [];
  const incoming = response.consume();
  const stream = incoming.stream();
  try {
    while (kept.length < BODY_KEPT_BYTES) kept.push(...stream.blockingRead(BigInt(BODY_KEPT_BYTES - kept.length)));
  } catch {
    // This is how a stream ends.
  }
  stream[Symbol.dispose]();
  IncomingBody.finish(incoming)[Symbol.dispose]();
  return new TextDecoder().decode(new Uint8Array(kept));
}

/**
 * What failed before anything was sent has nothing to do with the event: no other could be delivered either, and none is to
 * use up its attempts for it. What failed later may have to do with it.
 */
function toError(shown: string, cause: unknown): PublishError {
  const name = hasTag(cause) ? cause.tag : String(cause);
  if (name === "HTTP-request-denied" || name === "destination-IP-prohibited") {
    const reason = `the relay denied the request to ${shown} (${name}): the publisher has no grant for it`;
    return { tag: "unavailable", val: { reason } };
  }
  const tag = UNSENT.includes(name) ? "unavailable" : "retryable";
  return { tag, val: { reason: `the request to ${shown} failed: ${name}` } };
}

function payload(thrown: unknown): unknown {
  return thrown instanceof Error && "payload" in thrown ? thrown.payload : thrown;
}

function hasTag(cause: unknown): cause is { tag: string } {
  return typeof cause === "object" && cause !== null && "tag" in cause;
}
