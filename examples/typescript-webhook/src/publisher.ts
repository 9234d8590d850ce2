// Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.

import { getEnvironment } from "wasi:cli/environment@0.2.12";
import { toError } from "./answer.js";
import { CONTENT_TYPE, toCloudEvent } from "./cloud-event.js";
import type { PublishError, Recorded } from "./contract.js";
import { type Destination, parseDestination } from "./destination.js";
import { post } from "./http.js";

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
    let error: PublishError | undefined;
    try {
      const headers = { "content-type": CONTENT_TYPE, "idempotency-key": event.wrappedEvent.uuid };
      const answer = await post(destination, headers, toCloudEvent(event, source));
      error = toError(destination.shown, answer, Date.now());
    } catch (thrown) {
      // Whatever is thrown, a mistake in here too, may pass.
      error = { tag: "retryable", val: { reason: String(thrown) } };
    }
    if (error) throw error;
  },
};
