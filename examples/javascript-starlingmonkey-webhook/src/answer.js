const MAX_U32 = 2 ** 32 - 1;

/** What a response means for the event: nothing where it is published, else the error to throw. */
export function toError(destination, { status, retryAfter, body }, now) {
  if (status >= 200 && status < 300) return undefined;
  const said = body.trim();
  const reason = `${destination.shown} answered ${status}${said && `: ${said}`}`;
  if (status === 429 || status === 503) {
    return { tag: "unavailable", val: { reason, retryAfterMs: wait(retryAfter, now) } };
  }
  const mayPass = status === 408 || status === 409;
  if (status >= 400 && status < 500 && !mayPass) return { tag: "rejected", val: reason };
  return { tag: "retryable", val: { reason } };
}

/** `Retry-After` is a number of seconds, or a date. */
function wait(retryAfter, now) {
  const value = retryAfter?.trim() ?? "";
  let milliseconds = NaN;
  if (/^\d+$/.test(value)) milliseconds = Number(value) * 1000;
  else if (value.endsWith(" GMT")) milliseconds = Date.parse(value) - now;
  return Number.isNaN(milliseconds) ? undefined : Math.min(Math.max(milliseconds, 0), MAX_U32);
}
