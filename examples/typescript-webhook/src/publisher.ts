// Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.

import { getEnvironment } from "wasi:cli/environment@0.2.12";
import { toError } from "./answer.js";
import { CONTENT_TYPE, toCloudEvent } from "./cloud-event.js";
import type { PublishError, Recorded } from "./contract.js";
import { type Destination, parseDestination } from "./destination.js";
import { post } from "./http.js";
import { orderId } from "./order.js";

let destination: Destination;
let source: string;

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
  },
};

export const publisher = {
  async publish(event: Recorded): Promise<void> {
    try {
      await decide(event);
    } catch (thrown) {
      throw toPublishError(thrown);
    }
  },
};

/** What is done with an event is decided by its name. */
async function decide(event: Recorded): Promise<void> {
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

async function send(event: Recorded, extensions?: Record<string, string>): Promise<void> {
  const headers = { "content-type": CONTENT_TYPE, "idempotency-key": event.wrappedEvent.uuid };
  const answer = await post(destination, headers, toCloudEvent(event, source, extensions));
  const error = toError(destination.shown, answer, Date.now());
  if (error) throw error;
}

/** What the program throws on purpose has a tag; anything else, a mistake in here too, may pass. */
function toPublishError(thrown: unknown): PublishError {
  const isOnPurpose = typeof thrown === "object" && thrown !== null && "tag" in thrown;
  return isOnPurpose ? (thrown as PublishError) : { tag: "retryable", val: { reason: String(thrown) } };
}
