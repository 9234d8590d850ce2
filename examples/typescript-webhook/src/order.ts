import type { Payload, PublishError } from "./contract.js";

/** Decodes the data of an `order.placed`: which order it is about. Throws a `PublishError`. */
export function orderId(data: Payload): string {
  if (data.tag !== "json") throw rejected(`its data is ${data.val.contentType}, not JSON`);
  const decoded: { order?: unknown } | null = JSON.parse(data.val);
  const order = decoded?.order;
  if (typeof order === "string") return order;
  if (typeof order === "number" && Number.isSafeInteger(order) && order >= 0) return String(order);
  throw rejected('its data has no "order" that is a whole number or a string');
}

function rejected(why: string): PublishError {
  return { tag: "rejected", val: `order.placed: ${why}` };
}
