import type { Answer } from "./answer.js";
import type { Destination } from "./destination.js";

/** Of a response's body, so much goes into an error's reason. */
const BODY_KEPT_CHARACTERS = 500;

/** Posts `body`, and waits for the whole response. */
export async function post({ url, shown }: Destination, headers: HeadersInit, body: string): Promise<Answer> {
  try {
    const response = await fetch(url, { method: "POST", headers, body, redirect: "manual" });
    const text = await response.text().catch(() => ""); // the status is the answer
    return {
      status: response.status,
      retryAfter: response.headers.get("retry-after"),
      body: text.slice(0, BODY_KEPT_CHARACTERS),
    };
  } catch (cause) {
    throw `the request to ${shown} failed: ${cause instanceof Error ? cause.message : cause}`;
  }
}
