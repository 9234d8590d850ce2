// Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.

import { getEnvironment } from "wasi:cli/environment@0.2.12";
import { type Kind, toError } from "./answer.js";
import { CONTENT_TYPE, toCloudEvent } from "./cloud-event.js";
import type { PublishError, Recorded } from "./contract.js";
import { type Destination, parseDestination } from "./destination.js";
import { post } from "./http.js";
import { orderId } from "./order.js";
import { traceHeaders, traceOf } from "./trace.js";

let destination: Destination;
let source: string;
let notFound: Kind;

export const lifecycle = {
  configure(): void {
    const settings = new Map(getEnvironment());
    const url = settings.get("WEBHOOK_URL");
    if (!url) throw "the environment variable WEBHOOK_URL is missing: where to post to";
    try {
      destination = parseDestination(url);
    } catch (reason) {
      throw `the environment variable WEBHOOK_URL ${reason}`;
    }
    source = settings.get("WEBHOOK_SOURCE") || "/outbox";
    const kind = settings.get("WEBHOOK_NOT_FOUND") || "rejected";
    if (kind !== "retryable" && kind !== "rejected" && kind !== "unavailable") {
      throw `the environment variable WEBHOOK_NOT_FOUND is "${kind}": retryable, rejected and unavailable are possible`;
    }
    notFound = kind;
  },
};

export const publisher = {
  publish(event: Recorded): void {
    try {
      decide(event);
    } catch (thrown) {
      throw toPublishError(thrown);
    }
  },
};

/** What is done with an event is decided by its name. */
function decide(event: Recorded): void {
  const { name, data } = event.wrappedEvent;
  switch (name) {
    case "order.placed":
      return send(event, { orderid: orderId(data) });
    case "order.viewed":
      return; // of no interest to the destination
    default:
      return send(event);
  }
}

function send(event: Recorded, extensions?: Record<string, string>): void {
  const { uuid, context } = event.wrappedEvent;
  const headers = { "content-type": CONTENT_TYPE, "idempotency-key": uuid, ...traceHeaders(traceOf(context)) };
  const answer = post(destination, headers, toCloudEvent(event, source, extensions));
  const error = toError(destination.shown, answer, notFound, Date.now());
  if (error) throw error;
}

/** What the program throws on purpose has a tag; anything else, a mistake in here too, may pass. */
function toPublishError(thrown: unknown): PublishError {
  const isOnPurpose = typeof thrown === "object" && thrown !== null && "tag" in thrown;
  return isOnPurpose ? (thrown as PublishError) : { tag: "retryable", val: { reason: String(thrown) } };
}
