import assert from "node:assert/strict";
import { test } from "node:test";
import { toError } from "./answer.js";
import { toCloudEvent } from "./cloud-event.js";
import { parseDestination } from "./destination.js";
import { orderId } from "./order.js";
import { traceHeaders, traceOf } from "./trace.js";

function event(data = { tag: "json", val: '{"order": 7}' }) {
  return {
    wrappedEvent: {
      uuid: "00000000-0000-4000-8000-000000000001", name: "order.placed", version: undefined,
      createdAt: "2026-01-31T12:00:00.000Z", data, context: "{}",
    },
    streamId: { id: "example-1", name: undefined, category: undefined },
    position: 12n, tenantId: "default", attempt: 1,
  };
}

test("an event has the attributes of CloudEvents and the outbox's own", () => {
  const given = event();
  given.streamId.name = 'Ada\'s "orders"';
  given.wrappedEvent.version = 3n;
  assert.deepEqual(JSON.parse(toCloudEvent(given, "/shop")), {
    specversion: "1.0", id: "00000000-0000-4000-8000-000000000001", source: "/shop", type: "order.placed",
    subject: "example-1", time: "2026-01-31T12:00:00.000Z", datacontenttype: "application/json", outboxposition: "12",
    outboxattempt: 1, tenantid: "default", streamname: 'Ada\'s "orders"', streamversion: "3", data: { order: 7 },
  });
});

test("JSON data arrives byte for byte, other data as base64", () => {
  const val = '{"z": 1.10, "a":\t1e2}';
  assert.ok(toCloudEvent(event({ tag: "json", val }), "/").endsWith(`,"data":${val}}`));
  const binary = { tag: "binary", val: { contentType: "image/png", bytes: new Uint8Array([0xff, 0, 1]) } };
  const sent = JSON.parse(toCloudEvent(event(binary), "/"));
  assert.deepEqual([sent.datacontenttype, sent.data_base64, sent.data], ["image/png", "/wAB", undefined]);
});

test("the trace of the context is passed on where there is one", () => {
  const given = event();
  given.wrappedEvent.context = '{"traceparent": "00-ab-cd-01", "user": 7}';
  assert.equal(JSON.parse(toCloudEvent(given, "/")).traceparent, "00-ab-cd-01");
  given.wrappedEvent.context = '{"traceparent": 7}';
  assert.equal(JSON.parse(toCloudEvent(given, "/")).traceparent, undefined);
});

test("the trace is found where the context has it", () => {
  const values = { traceparent: "00-b", tracestate: "k=v" };
  const nested = { correlation_id: null, components: { opentelemetry: { values } } };
  for (const [context, found] of [
    [{ traceparent: "00-a", tracestate: "k=v" }, { traceparent: "00-a", tracestate: "k=v" }], [nested, values],
    [{ ...nested, traceparent: "00-a" }, { traceparent: "00-a" }], [{ traceparent: 7 }, {}], [[], {}],
    [{ components: { opentelemetry: [{ values }] }, tracestate: "k=v" }, {}], [{ components: 7 }, {}],
    [{ components: { opentelemetry: { values: "00-a" } } }, {}], [{ traceparent: "00-a", tracestate: 7 }, { traceparent: "00-a" }],
  ]) {
    assert.deepEqual(traceHeaders(traceOf(JSON.stringify(context))), found, JSON.stringify(context));
  }
  for (const traceparent of ["", "00-\r\nx: y", "é", "x".repeat(513)]) {
    assert.deepEqual(traceHeaders({ traceparent, tracestate: "k=v" }), {});
  }
});

test("an order is a whole number or a string", () => {
  for (const [val, order] of [
    ['{"order": 7}', "7"], ['{"lines": [{"order": 1}], "order": "a/\\u00e9"}', "a/é"],
    ['{"order": 9007199254740991}', "9007199254740991"],
  ]) {
    assert.equal(orderId({ tag: "json", val }), order);
  }
  assert.equal(JSON.parse(toCloudEvent(event(), "/", { orderid: "7" })).orderid, "7");
  assert.equal(JSON.parse(toCloudEvent(event(), "/")).orderid, undefined);
});

test("anything else is rejected with what is missing", () => {
  const orders = ["-1", "1.5", "9007199254740992", "true", "null", "[7]", '{"order": 7}'];
  for (const val of ["{}", "[7]", "7", '"order"', "null", ...orders.map((order) => `{"order": ${order}}`)]) {
    const reason = 'order.placed: its data has no "order" that is a whole number or a string';
    assert.throws(() => orderId({ tag: "json", val }), { tag: "rejected", val: reason }, val);
  }
  const binary = { tag: "binary", val: { contentType: "image/png", bytes: new Uint8Array([1]) } };
  assert.throws(() => orderId(binary), { tag: "rejected", val: "order.placed: its data is image/png, not JSON" });
});

const NOW = Date.parse("2026-01-31T12:00:00Z");
const answer = (status, retryAfter, body = "", notFound = "rejected") =>
  toError("https://a.example/in", { status, retryAfter, body }, notFound, NOW);

test("each status has its meaning", () => {
  for (const status of [200, 202, 204]) assert.equal(answer(status), undefined);
  for (const status of [400, 402, 404, 405, 410, 413, 422, 451]) assert.equal(answer(status).tag, "rejected", status);
  for (const status of [301, 302, 408, 409, 421, 423, 425, 500, 502, 504]) assert.equal(answer(status).tag, "retryable", status);
  for (const status of [401, 403, 407, 429, 503]) assert.equal(answer(status).tag, "unavailable", status);
  for (const kind of ["retryable", "rejected", "unavailable"]) assert.equal(answer(404, undefined, "", kind).tag, kind);
  assert.equal(answer(422, undefined, "no such order\n").val, "https://a.example/in answered 422: no such order");
});

test("a pause is asked for in seconds or by date", () => {
  for (const [value, milliseconds] of [
    ["120", 120_000], [" 0 ", 0], ["9999999999", 2 ** 32 - 1], ["Sat, 31 Jan 2026 12:00:30 GMT", 30_000],
    ["Sat, 31 Jan 2026 11:00:00 GMT", 0], ["soon", undefined], ["-1", undefined], [undefined, undefined],
    ["Saturday, 31-Jan-26 12:00:30 GMT", 30_000], ["Sunday, 06-Nov-94 08:49:37 GMT", 0],
    ["Sat Jan 31 12:00:30 2026", 30_000], ["Sun Feb  1 12:00:00 2026", 86_400_000], ["9".repeat(5_000), 2 ** 32 - 1],
    ["+1", undefined], ["1.5", undefined], ["Sat, 31 Jan 2026 12:00:30 CET", undefined], ["Sat, 31 Abc 2026 12:00:30 GMT", undefined],
  ]) {
    for (const status of [401, 425, 503]) assert.equal(answer(status, value).val.retryAfterMs, milliseconds, value);
  }
});

test("a URL is shown without its query, which often carries a token", () => {
  const { url, shown } = parseDestination("HTTPS://a.example/in?token=secret");
  assert.deepEqual([url.href, shown], ["https://a.example/in?token=secret", "https://a.example/in"]);
});

test("what cannot be posted to is refused with a reason", () => {
  for (const [url, reason] of [
    ["localhost:8080", /is no URL/], ["ftp://a.example", /scheme ftp/], ["http://:80/", /no host/],
    ["http://a.example/a b", /percent-encoded/], ["https://user:secret@a.example", /password/],
  ]) {
    assert.throws(() => parseDestination(url), (thrown) => reason.test(thrown), url);
  }
});
