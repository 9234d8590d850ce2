/** Decodes the data of an `order.placed`: which order it is about. */
export function orderId({ tag, val }) {
  if (tag !== "json") throw { tag: "rejected", val: `order.placed: its data is ${val.contentType}, not JSON` };
  const order = JSON.parse(val)?.order;
  if (typeof order === "string") return order;
  if (Number.isSafeInteger(order) && order >= 0) return String(order);
  throw { tag: "rejected", val: 'order.placed: its data has no "order" that is a whole number or a string' };
}
