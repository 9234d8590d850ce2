import { traceOf } from "./trace.js";

export const CONTENT_TYPE = "application/cloudevents+json";

/**
 * The event in the structured JSON format of CloudEvents 1.0.
 *
 * JSON data is put in as the text that it is, so that it arrives byte for byte as the application wrote it. Positions
 * and versions are strings: an integer of CloudEvents has 32 bits.
 */
export function toCloudEvent(event, source, extensions = {}) {
  const { wrappedEvent, streamId } = event;
  const { tag, val } = wrappedEvent.data;
  const attributes = JSON.stringify({
    specversion: "1.0",
    id: wrappedEvent.uuid,
    source,
    type: wrappedEvent.name,
    subject: streamId.id,
    time: wrappedEvent.createdAt,
    datacontenttype: tag === "json" ? "application/json" : val.contentType,
    outboxposition: String(event.position),
    outboxattempt: Math.min(event.attempt, 2 ** 31 - 1),
    tenantid: event.tenantId,
    streamname: streamId.name ?? undefined,
    streamcategory: streamId.category ?? undefined,
    streamversion: wrappedEvent.version?.toString(),
    ...extensions,
    ...traceOf(wrappedEvent.context),
  });
  const head = attributes.slice(0, -1);
  return tag === "json" ? `${head},"data":${val}}` : `${head},"data_base64":"${base64(val.bytes)}"}`;
}

function base64(bytes) {
  let binary = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    binary += String.fromCharCode(...bytes.slice(start, start + 8192));
  }
  return btoa(binary);
}
