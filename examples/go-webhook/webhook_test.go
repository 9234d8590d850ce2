package main

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func example(data string) *Event {
	return &Event{
		UUID: "00000000-0000-4000-8000-000000000001", Name: "order.placed", CreatedAt: "2026-01-31T12:00:00.000Z",
		Data: data, Context: "{}", StreamID: "example-1", Position: math.MaxUint64, TenantID: "default", Attempt: 1,
	}
}

func sent(t *testing.T, event *Event) map[string]any {
	t.Helper()
	text, err := cloudEvent(event, "/shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return members
}

func TestAnEventHasTheAttributesOfCloudEventsAndTheOutboxsOwn(t *testing.T) {
	event, name, version := example(`{"order": 7}`), `Ada's "orders"`, uint64(3)
	event.StreamName, event.Version = &name, &version
	want := map[string]any{
		"specversion": "1.0", "id": event.UUID, "source": "/shop", "type": "order.placed", "subject": "example-1",
		"time": event.CreatedAt, "datacontenttype": "application/json", "outboxposition": "18446744073709551615",
		"outboxattempt": 1.0, "tenantid": "default", "streamname": name, "streamversion": "3",
		"data": map[string]any{"order": 7.0},
	}
	if got := sent(t, event); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestJSONArrivesByteForByteAndOtherDataAsBase64(t *testing.T) {
	data := "{\"z\": 1.10, \"a\":\t1e2}"
	if text, _ := cloudEvent(example(data), "/", nil); !strings.HasSuffix(string(text), `,"data":`+data+"}") {
		t.Errorf("%s", text)
	}
	event := example("\xff\x00\x01")
	event.ContentType = "image/png"
	got := sent(t, event)
	if got["datacontenttype"] != "image/png" || got["data_base64"] != "/wAB" || got["data"] != nil {
		t.Errorf("%v", got)
	}
}

func TestTheTraceOfTheContextIsPassedOnWhereThereIsOne(t *testing.T) {
	event := example("{}")
	event.Context = `{"traceparent": "00-ab", "user": 7}`
	if got := sent(t, event)["traceparent"]; got != "00-ab" {
		t.Error(got)
	}
	event.Context = `{"traceparent": 7}`
	if got := sent(t, event)["traceparent"]; got != nil {
		t.Error(got)
	}
}

const nestedTrace = `{"correlation_id": null, "components": {"opentelemetry": {"values": {"traceparent": "00-b", "tracestate": "k=v"}}}}`

func TestTheTraceIsFoundWhereTheContextHasIt(t *testing.T) {
	for context, want := range map[string]string{
		`{"traceparent": "00-a", "tracestate": "k=v"}`: "traceparent 00-a,tracestate k=v",
		nestedTrace: "traceparent 00-b,tracestate k=v",
		`{"traceparent": "00-a", "components": {"opentelemetry": {"values": {"traceparent": "00-b", "tracestate": "k"}}}}`: "traceparent 00-a",
		`{"components": {"opentelemetry": [{"values": 1}]}, "tracestate": "k=v"}`:                                          "",
		`{"components": 7}`: "", `{"traceparent": 7}`: "", `{"traceparent": "00-\r\nx: y"}`: "", `{"traceparent": "é"}`: "", `[]`: "",
		`{"traceparent": ""}`: "", `{"Traceparent": "00-a"}`: "",
	} {
		var got []string
		for _, h := range traceOf(context).headers() {
			got = append(got, h.name+" "+h.value)
		}
		if strings.Join(got, ",") != want {
			t.Error(context, got)
		}
	}
	event := example("{}")
	event.Context = nestedTrace
	if got := sent(t, event)["traceparent"]; got != "00-b" {
		t.Error(got)
	}
}

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func answerTo(r response) *Error {
	to, _ := parseDestination("https://a.example/in?token=secret")
	return toError(to, r, notFound, noon)
}

func TestEachStatusHasItsMeaning(t *testing.T) {
	for _, status := range []uint16{200, 202, 204} {
		if got := answerTo(response{status: status}); got != nil {
			t.Error(status, got)
		}
	}
	for meaning, statuses := range map[uint8][]uint16{
		Rejected:    {400, 402, 404, 405, 410, 413, 422, 451},
		Retryable:   {301, 302, 408, 409, 421, 423, 425, 500, 502, 504},
		Unavailable: {401, 403, 407, 429, 503},
	} {
		for _, status := range statuses {
			if got := answerTo(response{status: status}); got == nil || got.Case != meaning {
				t.Error(status, got)
			}
		}
	}
	got := answerTo(response{status: 422, body: "no such order\n"})
	if got.Reason != "https://a.example/in answered 422: no such order" {
		t.Error(got.Reason)
	}
}

func TestWhatIsNotFoundIsWhatTheOperatorSays(t *testing.T) {
	defer func() { notFound = Rejected }()
	settings := map[string]string{"WEBHOOK_URL": "https://a.example/in"}
	for kind, want := range cases {
		settings["WEBHOOK_NOT_FOUND"] = kind
		if err := configure(settings); err != nil || answerTo(response{status: 404}).Case != want {
			t.Error(kind, err)
		}
	}
	settings["WEBHOOK_NOT_FOUND"] = "lost"
	if err := configure(settings); err == nil || !strings.Contains(err.Error(), `WEBHOOK_NOT_FOUND is "lost"`) {
		t.Error(err)
	}
}

func TestAPauseIsAskedForInSecondsOrByDate(t *testing.T) {
	for value, want := range map[string]int64{
		"120": 120_000, " 0 ": 0, "9999999999": math.MaxUint32, "99999999999999999999": math.MaxUint32,
		"Sat, 31 Jan 2026 12:00:30 GMT": 30_000, "Sat, 31 Jan 2026 11:00:00 GMT": 0, "soon": -1, "-1": -1, "": -1,
		"Saturday, 31-Jan-26 12:00:30 GMT": 30_000, "Sunday, 06-Nov-94 08:49:37 GMT": 0,
		"Sat Jan 31 12:00:30 2026": 30_000, "Sun Feb  1 12:00:00 2026": 86_400_000,
		"+1": -1, "1.5": -1, "1_000": -1, "Sat, 31 Jan 2026 12:00:30 CET": -1,
	} {
		for _, status := range []uint16{503, 401, 425, 302} {
			got := int64(-1)
			if ms := answerTo(response{status: status, retryAfter: value}).RetryAfterMS; ms != nil {
				got = int64(*ms)
			}
			if got != want {
				t.Errorf("%d %q: %d", status, value, got)
			}
		}
	}
}

func TestWhatCannotBePostedToIsRefusedWithAReason(t *testing.T) {
	for url, reason := range map[string]string{
		"localhost:8080": "is no URL", "ftp://a.example": "scheme ftp", "http://:80/": "no host",
		"http://a.example/a b": "percent-encoded", "https://user:secret@a.example": "password",
	} {
		if err := configure(map[string]string{"WEBHOOK_URL": url}); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// What publish posts of an event, and what it says of it.
func published(event *Event) (posted []string, failed *Error) {
	post := func(_ destination, _ []header, body []byte) (response, *Error) {
		posted = append(posted, string(body))
		return response{status: 200}, nil
	}
	failed = publish(event, post, time.Now)
	return posted, failed
}

func TestAnOrderThatIsPlacedIsNamed(t *testing.T) {
	for data, order := range map[string]string{
		`{"order": 7}`: "7", `{"lines": [{"order": 1}], "order" : "a/\u00e9"}`: "a/é",
		`{"order": 9007199254740991}`: "9007199254740991",
	} {
		posted, failed := published(example(data))
		var sent struct{ OrderID string }
		if failed != nil || len(posted) != 1 || json.Unmarshal([]byte(posted[0]), &sent) != nil || sent.OrderID != order {
			t.Error(data, posted, failed)
		}
	}
}

func TestAnOrderWithoutANumberOrANameIsRejected(t *testing.T) {
	for _, data := range []string{
		`{}`, `[7]`, `7`, `"order"`, `null`, `{"order": -1}`, `{"order": 1.5}`, `{"order": true}`, `{"order": null}`,
		`{"order": [7]}`, `{"order": {"order": 7}}`, `{"order": 9007199254740992}`, `{"Order": 7}`,
	} {
		posted, failed := published(example(data))
		want := `order.placed: its data has no "order" that is a whole number or a string`
		if len(posted) != 0 || failed == nil || failed.Case != Rejected || failed.Reason != want {
			t.Error(data, posted, failed)
		}
	}
	event := example("7")
	event.ContentType = "image/png"
	if _, failed := published(event); failed == nil || failed.Reason != "order.placed: its data is image/png, not JSON" {
		t.Error(failed)
	}
}

func TestOtherEventsArePassedOverOrPostedByTheirName(t *testing.T) {
	event := example("{}")
	event.Name = "order.viewed"
	if posted, failed := published(event); len(posted) != 0 || failed != nil {
		t.Error(posted, failed)
	}
	event.Name = "order.paid"
	if posted, failed := published(event); len(posted) != 1 || strings.Contains(posted[0], "orderid") || failed != nil {
		t.Error(posted, failed)
	}
}

func TestAPanicIsRetriedWithItsMessage(t *testing.T) {
	post := func(destination, []header, []byte) (response, *Error) { panic("a mistake") }
	got := publish(example(`{"order": 7}`), post, time.Now)
	if got == nil || got.Case != Retryable || got.Reason != "a mistake" {
		t.Error(got)
	}
}
