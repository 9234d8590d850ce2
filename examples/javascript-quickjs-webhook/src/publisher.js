// Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.

import { getEnvironment } from "wasi:cli/environment@0.2.12";
import { toError } from "./answer.js";
import { CONTENT_TYPE, toCloudEvent } from "./cloud-event.js";
import { parseDestination } from "./destination.js";
import { post } from "./http.js";
import { orderId } from "./order.js";
import { traceHeaders, traceOf } from "./trace.js";

let destination, source, notFound;

export const lifecycle = {
  configure() {
    const settings = Object.fromEntries(getEnvironment());
    const url = settings.WEBHOOK_URL;
    if (!url) throw "the environment variable WEBHOOK_URL is missing: where to post to";
    destination = parseDestination(url);
    if (typeof destination === "string") throw `the environment variable WEBHOOK_URL ${destination}`;
    source = settings.WEBHOOK_SOURCE || "/outbox";
    notFound = settings.WEBHOOK_NOT_FOUND || "rejected";
    if (!["retryable", "rejected", "unavailable"].includes(notFound)) {
      throw `the environment variable WEBHOOK_NOT_FOUND is "${notFound}": retryable, rejected and unavailable are possible`;
    }
  },
};

export const publisher = {
  publish(event) {
    try {
      decide(event);
    } catch (thrown) {
      // What the program throws on purpose has a tag; anything else is a mistake, and may pass.
      throw thrown?.tag ? thrown : { tag: "retryable", val: { reason: String(thrown), retryAfterMs: null } };
    }
  },
};

/** What is done with an event is decided by its name. */
function decide(event) {
  const { name, data } = event.wrappedEvent;
  switch (name) {
    case "order.placed":
      return send(event, { orderid: orderId(data) });
    case "order.viewed":
      return undefined; // of no interest to the destination
    default:
      return send(event);
  }
}

function send(event, extensions) {
  const { uuid, context } = event.wrappedEvent;
  const headers = { "content-type": CONTENT_TYPE, "idempotency-key": uuid, ...traceHeaders(traceOf(context)) };
  const response = post(destination, headers, toCloudEvent(event, source, extensions));
  const error = toError(destination, response, notFound, Date.now());
  if (error) throw error;
}
