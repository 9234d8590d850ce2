// Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.
package main

import (
	"errors"
	"fmt"
	"time"
)

var (
	target   destination
	source   = "/outbox"
	notFound = uint8(Rejected)
)

func configure(settings map[string]string) (err error) {
	url := settings["WEBHOOK_URL"]
	if url == "" {
		return errors.New("the environment variable WEBHOOK_URL is missing: where to post to")
	}
	if target, err = parseDestination(url); err != nil {
		return fmt.Errorf("the environment variable WEBHOOK_URL %w", err)
	}
	if kind := settings["WEBHOOK_NOT_FOUND"]; kind != "" {
		var known bool
		if notFound, known = cases[kind]; !known {
			return fmt.Errorf("the environment variable WEBHOOK_NOT_FOUND is %q: retryable, rejected and unavailable are possible", kind)
		}
	}
	if settings["WEBHOOK_SOURCE"] != "" {
		source = settings["WEBHOOK_SOURCE"]
	}
	return nil
}

// publish is handed how to post, and what time it is: tests have no wasi.
func publish(event *Event, post poster, now func() time.Time) (failed *Error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			failed = &Error{Case: Retryable, Reason: fmt.Sprint(panicked)}
		}
	}()
	switch event.Name {
	case "order.placed":
		order, failed := orderID(event)
		if failed != nil {
			return failed
		}
		return send(event, &order, post, now)
	case "order.viewed":
		return nil // of no interest to the destination
	default:
		return send(event, nil, post, now)
	}
}

func send(event *Event, order *string, post poster, now func() time.Time) *Error {
	body, err := cloudEvent(event, source, order)
	if err != nil {
		return &Error{Case: Retryable, Reason: err.Error()}
	}
	headers := []header{{"content-type", cloudEventType}, {"idempotency-key", event.UUID}}
	response, failed := post(target, append(headers, traceOf(event.Context).headers()...), body)
	if failed != nil {
		return failed
	}
	return toError(target, response, notFound, now())
}

type header struct{ name, value string }

type poster func(destination, []header, []byte) (response, *Error)

func main() {}
