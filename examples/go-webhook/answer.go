package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

type response struct {
	status     uint16
	retryAfter string
	body       string // the beginning of it
}

// toError says what a response means for the event; nil means that it is published. notFound is what 404 and 410 mean.
func toError(to destination, r response, notFound uint8, now time.Time) *Error {
	if r.status >= 200 && r.status < 300 {
		return nil
	}
	failed := &Error{Case: meaning(r.status, notFound), Reason: fmt.Sprintf("%s answered %d", to, r.status)}
	if body := strings.TrimSpace(r.body); body != "" {
		failed.Reason += ": " + body
	}
	if failed.Case != Rejected {
		failed.RetryAfterMS = wait(r.retryAfter, now)
	}
	return failed
}

// What a status means that is not 2xx: see webhook.md.
func meaning(status uint16, notFound uint8) uint8 {
	switch status {
	case 401, 403, 407, 429, 503:
		return Unavailable
	case 404, 410:
		return notFound
	case 408, 409, 421, 423, 425:
		return Retryable
	}
	if status >= 400 && status < 500 {
		return Rejected
	}
	return Retryable
}

// The three formats of HTTP. Of the years that the second one writes with two digits, Go takes those from 69 on for past.
var dates = []string{"Mon, 02 Jan 2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT", "Mon Jan _2 15:04:05 2006"}

// `Retry-After` is a number of seconds, or a date.
func wait(retryAfter string, now time.Time) *uint32 {
	value := strings.TrimSpace(retryAfter)
	ms, found := uint64(0), false
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		ms, found = seconds*1000, true
	} else if err.(*strconv.NumError).Err == strconv.ErrRange {
		ms, found = math.MaxUint32, true
	}
	for _, format := range dates {
		if date, err := time.Parse(format, value); err == nil {
			ms, found = uint64(max(date.Sub(now).Milliseconds(), 0)), true
		}
	}
	if !found {
		return nil
	}
	bounded := uint32(min(ms, math.MaxUint32))
	return &bounded
}

// A reason is UTF-8: the beginning of a body may end within a character.
func toValid(body []byte) string { return strings.ToValidUTF8(string(body), "\uFFFD") }
