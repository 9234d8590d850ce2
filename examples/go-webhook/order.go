package main

import (
	"encoding/json"
	"strconv"
)

// The largest whole number that every reader of JSON holds exactly.
const maxOrder = 1<<53 - 1

// orderID decodes the data of an order.placed: which order it is about.
func orderID(event *Event) (string, *Error) {
	if event.ContentType != "" {
		return "", &Error{Case: Rejected, Reason: "order.placed: its data is " + event.ContentType + ", not JSON"}
	}
	// A map: names of a struct's fields would be found in capitals, too.
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(event.Data), &members) == nil {
		order := members["order"]
		if number, err := strconv.ParseUint(string(order), 10, 64); err == nil && number <= maxOrder {
			return string(order), nil
		}
		var text *string // nil for null
		if json.Unmarshal(order, &text) == nil && text != nil {
			return *text, nil
		}
	}
	return "", &Error{Case: Rejected, Reason: `order.placed: its data has no "order" that is a whole number or a string`}
}
