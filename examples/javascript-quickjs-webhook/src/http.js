// One POST over wasi:http. A function of WIT that answers with an error throws it here, as the `payload` of an Error.

import { handle } from "wasi:http/outgoing-handler@0.2.12";
import { Fields, IncomingBody, OutgoingBody, OutgoingRequest, RequestOptions } from "wasi:http/types@0.2.12";

const TIMEOUT_NS = 10_000_000_000;
/** So much of a text is encoded at once. */
const PIECE_CHARACTERS = 16_384;
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

/** Posts `body`, a text, and waits for the whole response. */
export function post(destination, headers, body) {
  try {
    const pieces = encode(body);
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const request = newRequest(destination, headers, length);
    const outgoing = request.body();
    const future = handle(request, options());
    // A server may answer, and hang up, before it has read everything: its answer counts, not the broken pipe.
    const broken = write(outgoing, pieces);
    future.subscribe().block();
    const answer = future.get()?.val;
    if (answer?.tag === "err") throw answer.val;
    if (answer?.tag !== "ok") throw broken ?? "the response is gone";
    return read(answer.val);
  } catch (thrown) {
    throw toError(destination, thrown?.payload ?? thrown);
  }
}

function newRequest(destination, headers, length) {
  const fields = Object.entries({ ...headers, "content-length": String(length) });
  const request = new OutgoingRequest(Fields.fromList(fields.map(([name, value]) => [name, bytesOf(value)])));
  request.setMethod({ tag: "post" });
  request.setScheme({ tag: destination.https ? "HTTPS" : "HTTP" });
  request.setAuthority(destination.authority);
  request.setPathWithQuery(destination.pathWithQuery);
  return request;
}

function options() {
  const options = new RequestOptions();
  options.setConnectTimeout(TIMEOUT_NS);
  options.setFirstByteTimeout(TIMEOUT_NS);
  options.setBetweenBytesTimeout(TIMEOUT_NS);
  return options;
}

/** Writes and finishes a body; answers with the error where it broke off. */
function write(outgoing, pieces) {
  try {
    const stream = outgoing.write();
    for (const bytes of pieces) {
      for (let start = 0; start < bytes.length; start += CHUNK_BYTES) {
        stream.blockingWriteAndFlush(bytes.slice(start, start + CHUNK_BYTES));
      }
    }
    stream[Symbol.dispose](); // a body is finished only when nothing can write to it any more
    OutgoingBody.finish(outgoing, null);
    return undefined;
  } catch (thrown) {
    return thrown;
  }
}

function read(response) {
  const status = response.status();
  const [retryAfter] = response.headers().get("retry-after");
  // What is published needs no reason, and a body without an end takes nothing from it.
  const body = status >= 200 && status < 300 ? "" : beginningOfBody(response);
  response[Symbol.dispose]();
  return { status, retryAfter: retryAfter && decode(retryAfter), body };
}

/** The status is the answer: a body that breaks off takes nothing from it. */
function beginningOfBody(response) {
  const kept = [];
  try {
    const incoming = response.consume();
    const stream = incoming.stream();
    try {
      while (kept.length < BODY_KEPT_BYTES) kept.push(...stream.blockingRead(BODY_KEPT_BYTES - kept.length));
    } catch {
      // This is how a stream ends.
    }
    stream[Symbol.dispose]();
    IncomingBody.finish(incoming)[Symbol.dispose]();
  } catch {
    // What was read until then is what there is.
  }
  return decode(kept);
}

/**
 * What failed before anything was sent has nothing to do with the event: no other could be delivered either, and none is to
 * use up its attempts for it. What failed later may have to do with it.
 */
function toError(destination, cause) {
  const name = cause?.tag ?? String(cause);
  if (name === "HTTP-request-denied" || name === "destination-IP-prohibited") {
    const reason = `the relay denied the request to ${destination.shown} (${name}): the publisher has no grant for it`;
    return { tag: "unavailable", val: { reason, retryAfterMs: null } };
  }
  const reason = `the request to ${destination.shown} failed: ${name}`;
  return { tag: UNSENT.includes(name) ? "unavailable" : "retryable", val: { reason, retryAfterMs: null } };
}

// QuickJS has no TextEncoder.

/** A text in UTF-8, in pieces: it takes as much memory as it has bytes, and little more. */
function encode(text) {
  const pieces = [];
  for (let start = 0; start < text.length; ) {
    let end = Math.min(start + PIECE_CHARACTERS, text.length);
    // The halves of a character that has two stay together.
    if (end < text.length && (text.charCodeAt(end - 1) & 0xfc00) === 0xd800) end -= 1;
    pieces.push(bytesOf(text.slice(start, end)));
    start = end;
  }
  return pieces;
}

function bytesOf(text) {
  return Uint8Array.fromBase64(btoa(unescape(encodeURIComponent(text))));
}

function decode(bytes) {
  const binary = String.fromCharCode(...bytes);
  try {
    return decodeURIComponent(escape(binary));
  } catch {
    return binary; // not UTF-8, or cut within a character
  }
}
