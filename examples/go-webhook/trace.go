package main

import (
	"encoding/json"
	"strings"
)

// The trace that an event belongs to, as W3C's Trace Context has it: an extension of CloudEvents, and headers.
type trace struct {
	Parent *string `json:"traceparent,omitempty"`
	State  *string `json:"tracestate,omitempty"`
}

// A longer one is no header's value.
const traceBytesMax = 512

// traceOf finds the trace that an event's context names: itself, or where python-event-sourcery puts it. A context of another
// shape is the application's own affair.
func traceOf(context string) trace {
	nested := member(member(member(json.RawMessage(context), "components"), "opentelemetry"), "values")
	for _, carrier := range []json.RawMessage{json.RawMessage(context), nested} {
		if parent := stringOf(member(carrier, "traceparent")); parent != nil {
			return trace{parent, stringOf(member(carrier, "tracestate"))}
		}
	}
	return trace{}
}

// A map: names of a struct's fields would be found in capitals, too.
func member(object json.RawMessage, name string) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return nil
	}
	return members[name]
}

func stringOf(value json.RawMessage) *string {
	var text *string // nil for null
	if json.Unmarshal(value, &text) != nil {
		return nil
	}
	return text
}

// headers has those of its values that can be a header's.
func (t trace) headers() []header {
	var headers []header
	if isHeaderValue(t.Parent) {
		headers = append(headers, header{"traceparent", *t.Parent})
		if isHeaderValue(t.State) {
			headers = append(headers, header{"tracestate", *t.State})
		}
	}
	return headers
}

func isHeaderValue(text *string) bool {
	isPrintable := func(r rune) bool { return r >= ' ' && r <= '~' }
	return text != nil && *text != "" && len(*text) <= traceBytesMax &&
		strings.IndexFunc(*text, func(r rune) bool { return !isPrintable(r) }) < 0
}
