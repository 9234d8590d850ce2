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

// toError says what a response means for the event; nil means that it is published.
func toError(to destination, r response, now time.Time) *Error {
	reason := fmt.Sprintf("%s answered %d", to, r.status)
	if body := strings.TrimSpace(r.body); body != "" {
		reason += ": " + body
	}
	switch {
	case r.status >= 200 && r.status < 300:
		return nil
	case r.status == 429 || r.status == 503:
		return &Error{Unavailable, reason, wait(r.retryAfter, now)}
	case r.status >= 400 && r.status < 500 && r.status != 408 && r.status != 409:
		return &Error{Case: Rejected, Reason: reason}
	default:
		return &Error{Case: Retryable, Reason: reason}
	}
}

// `Retry-After` is a number of seconds, or a date.
func wait(retryAfter string, now time.Time) *uint32 {
	value := strings.TrimSpace(retryAfter)
	ms := uint64(0)
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		ms = seconds * 1000
	} else if err.(*strconv.NumError).Err == strconv.ErrRange {
		ms = math.MaxUint32
	} else if date, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", value); err == nil {
		ms = uint64(max(date.Sub(now).Milliseconds(), 0))
	} else {
		return nil
	}
	bounded := uint32(min(ms, math.MaxUint32))
	return &bounded
}

// A reason is UTF-8: the beginning of a body may end within a character.
func toValid(body []byte) string { return strings.ToValidUTF8(string(body), "\uFFFD") }
