/** A longer one is no header's value. */
const CHARACTERS_MAX = 512;

/**
 * The trace that an event belongs to, as W3C's Trace Context has it: an extension of CloudEvents, and headers. The event's
 * context names it itself, or where python-event-sourcery puts it. A context of another shape is the application's own affair,
 * and no reason not to deliver.
 */
export function traceOf(context) {
  const root = JSON.parse(context);
  const carrier = [root, root?.components?.opentelemetry?.values].find((it) => typeof it?.traceparent === "string");
  if (!carrier) return {};
  const { traceparent, tracestate } = carrier;
  return typeof tracestate === "string" ? { traceparent, tracestate } : { traceparent };
}

/** Those of its values that can be a header's. */
export function traceHeaders(trace) {
  const isValue = (value) => /^[ -~]+$/.test(value) && value.length <= CHARACTERS_MAX;
  const found = Object.entries(trace).filter(([, value]) => isValue(value));
  return found[0]?.[0] === "traceparent" ? Object.fromEntries(found) : {};
}
