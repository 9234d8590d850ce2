// Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.

import { getEnvironment } from "wasi:cli/environment@0.2.12";
import { toError } from "./answer.js";
import { CONTENT_TYPE, toCloudEvent } from "./cloud-event.js";
import { parseDestination } from "./destination.js";
import { post } from "./http.js";

let destination, source;

export const lifecycle = {
  configure() {
    const settings = Object.fromEntries(getEnvironment());
    const url = settings.WEBHOOK_URL;
    if (!url) throw "the environment variable WEBHOOK_URL is missing: where to post to";
    try {
      destination = parseDestination(url);
    } catch (reason) {
      throw `the environment variable WEBHOOK_URL ${reason}`;
    }
    source = settings.WEBHOOK_SOURCE || "/outbox";
  },
};

export const publisher = {
  async publish(event) {
    let error;
    try {
      const headers = { "content-type": CONTENT_TYPE, "idempotency-key": event.wrappedEvent.uuid };
      const response = await post(destination, headers, toCloudEvent(event, source));
      error = toError(destination, response, Date.now());
    } catch (thrown) {
      // Whatever is thrown, a mistake in here too, may pass.
      error = { tag: "retryable", val: { reason: String(thrown), retryAfterMs: undefined } };
    }
    if (error) throw error;
  },
};
