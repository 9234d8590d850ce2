import json
import unittest
from datetime import datetime, timezone
from types import SimpleNamespace as Record

from webhook.answer import Response, check
from webhook.cloud_event import to_json
from webhook.destination import Destination
from webhook.errors import KINDS, Rejected, Retryable, Unavailable
from webhook.order import order_id
from webhook.trace import headers, trace


def event(data='{"order": 7}', context="{}", **changes) -> Record:
    wrapped = Record(
        uuid="00000000-0000-4000-8000-000000000001",
        name="order.placed",
        version=changes.get("version"),
        created_at="2026-01-31T12:00:00.000Z",
        data=Record(value=data),
        context=context,
    )
    stream = Record(id="example-1", name=changes.get("stream_name"), category=None)
    return Record(wrapped_event=wrapped, stream_id=stream, position=2**64 - 1, tenant_id="default", attempt=1)


class CloudEvent(unittest.TestCase):
    def test_an_event_has_the_attributes_of_cloudevents_and_the_outboxs_own(self):
        sent = json.loads(to_json(event(version=3, stream_name='Ada\'s "orders"'), "/shop"))
        self.assertEqual(sent, {
            "specversion": "1.0", "id": "00000000-0000-4000-8000-000000000001", "source": "/shop",
            "type": "order.placed", "subject": "example-1", "time": "2026-01-31T12:00:00.000Z",
            "datacontenttype": "application/json", "outboxposition": "18446744073709551615", "outboxattempt": 1,
            "tenantid": "default", "streamname": 'Ada\'s "orders"', "streamversion": "3", "data": {"order": 7},
        })

    def test_json_arrives_byte_for_byte_and_other_data_as_base64(self):
        data = '{"z": 1.10, "a":\t1e2}'
        self.assertTrue(to_json(event(data), "/").endswith(f',"data":{data}}}'))
        sent = json.loads(to_json(event(Record(content_type="image/png", bytes=b"\xff\0\1")), "/"))
        self.assertEqual((sent["datacontenttype"], sent["data_base64"]), ("image/png", "/wAB"))
        self.assertNotIn("data", sent)

    def test_the_trace_of_the_context_is_passed_on_where_there_is_one(self):
        sent = json.loads(to_json(event(context='{"traceparent": "00-ab", "user": 7}'), "/"))
        self.assertEqual(sent["traceparent"], "00-ab")
        self.assertNotIn("traceparent", json.loads(to_json(event(context='{"traceparent": 7}'), "/")))


class Trace(unittest.TestCase):
    def test_it_is_found_where_the_context_has_it(self):
        values = {"traceparent": "00-b", "tracestate": "k=v"}
        nested = {"correlation_id": None, "components": {"opentelemetry": {"values": values}}}
        for context, found in (
            ({"traceparent": "00-a", "tracestate": "k=v"}, {"traceparent": "00-a", "tracestate": "k=v"}),
            (nested, values),
            ({**nested, "traceparent": "00-a"}, {"traceparent": "00-a"}),
            ({"components": {"opentelemetry": [{"values": values}]}, "tracestate": "k=v"}, {}),
            ({"components": 7}, {}), ({"components": {"opentelemetry": {"values": "00-a"}}}, {}), ({"traceparent": 7}, {}),
            ({"traceparent": "00-a", "tracestate": 7}, {"traceparent": "00-a"}), ([], {}),
        ):
            with self.subTest(context):
                self.assertEqual(headers(trace(json.dumps(context))), found)
        self.assertEqual(json.loads(to_json(event(context=json.dumps(nested)), "/"))["tracestate"], "k=v")

    def test_what_can_be_no_header_is_none(self):
        for value in ("", "00-\r\nx: y", "é", "x" * 513):
            self.assertEqual(headers({"traceparent": value, "tracestate": "k=v"}), {})


class Order(unittest.TestCase):
    def test_an_order_is_a_whole_number_or_a_string(self):
        for data, order in {
            '{"order": 7}': "7", '{"lines": [{"order": 1}], "order": "a/\\u00e9"}': "a/é",
            '{"order": 9007199254740991}': "9007199254740991",
        }.items():
            self.assertEqual(order_id(event(data)), order)
        self.assertEqual(json.loads(to_json(event(), "/", "a \"7\""))["orderid"], 'a "7"')
        self.assertNotIn("orderid", json.loads(to_json(event(), "/")))

    def test_anything_else_is_rejected_with_what_is_missing(self):
        orders = ("-1", "1.5", "9007199254740992", "true", "null", "[7]", '{"order": 7}')
        for data in ("{}", "[7]", "7", '"order"', "null", *(f'{{"order": {order}}}' for order in orders)):
            with self.subTest(data), self.assertRaisesRegex(Rejected, 'no "order" that is a whole number or a string$'):
                order_id(event(data))
        with self.assertRaisesRegex(Rejected, "^order.placed: its data is image/png, not JSON$"):
            order_id(event(Record(content_type="image/png", bytes=b"7")))


class Answer(unittest.TestCase):
    def check(self, status: int, retry_after: str | None = None, body: str = "", not_found=Rejected):
        now = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
        check(Destination.parse("https://a.example/in"), Response(status, retry_after, body), not_found, now)

    def test_each_status_has_its_meaning(self):
        for status in (200, 202, 204):
            self.check(status)
        meanings = {
            Rejected: (400, 402, 404, 405, 410, 413, 422, 451),
            Retryable: (301, 302, 408, 409, 421, 423, 425, 500, 502, 504),
            Unavailable: (401, 403, 407, 429, 503),
        }
        for meaning, statuses in meanings.items():
            for status in statuses:
                with self.subTest(status), self.assertRaises(meaning):
                    self.check(status)

    def test_what_is_not_found_is_what_the_operator_says(self):
        for kind in KINDS.values():
            with self.subTest(kind), self.assertRaises(kind):
                self.check(404, not_found=kind)

    def test_a_pause_is_asked_for_in_seconds_or_by_date(self):
        for value, milliseconds in {
            "120": 120_000, " 0 ": 0, "9999999999": 2**32 - 1, "Sat, 31 Jan 2026 12:00:30 GMT": 30_000,
            "Sat, 31 Jan 2026 11:00:00 GMT": 0, "soon": None, "-1": None, None: None, "0" * 20 + "7": 7_000,
            "Saturday, 31-Jan-26 12:00:30 GMT": 30_000, "Sunday, 06-Nov-94 08:49:37 GMT": 0,
            "Sat Jan 31 12:00:30 2026": 30_000, "Sun Feb  1 12:00:00 2026": 86_400_000, "9" * 5_000: 2**32 - 1,
            "+1": None, "1.5": None, "1_000": None, "Sat, 31 Jan 2026 12:00:30 CET": None,
            "Sat, 31 Feb 2026 12:00:30 GMT": None, "Sat, 31 Jan 2026 99:00:30 GMT": None, "\u0661": None,
        }.items():
            for status, kind in {503: Unavailable, 401: Unavailable, 425: Retryable, 302: Retryable}.items():
                with self.subTest(value), self.assertRaises(kind) as raised:
                    self.check(status, value)
                self.assertEqual(raised.exception.retry_after_ms, milliseconds)

    def test_the_reason_has_the_status_and_the_body(self):
        with self.assertRaisesRegex(Rejected, "^https://a.example/in answered 422: no such order$"):
            self.check(422, body="no such order\n")


class Destinations(unittest.TestCase):
    def test_a_url_has_an_authority_and_a_path(self):
        self.assertEqual(Destination.parse("http://localhost:8080"), Destination(False, "localhost:8080", "/"))
        self.assertEqual(Destination.parse("HTTPS://a.example/in?k=v#top"), Destination(True, "a.example", "/in?k=v"))
        self.assertEqual(Destination.parse("https://[::1]?k=a/b"), Destination(True, "[::1]", "/?k=a/b"))

    def test_a_token_in_the_query_is_not_shown(self):
        self.assertEqual(str(Destination.parse("https://a.example/in?token=secret")), "https://a.example/in")

    def test_what_cannot_be_posted_to_is_refused_with_a_reason(self):
        for url, reason in {
            "localhost:8080": "is no URL", "ftp://a.example": "scheme ftp", "http://:80/": "no host",
            "http://a.example/a b": "percent-encoded", "https://user:secret@a.example": "password",
        }.items():
            with self.subTest(url), self.assertRaisesRegex(ValueError, reason):
                Destination.parse(url)
