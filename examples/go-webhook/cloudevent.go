package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
)

const cloudEventType = "application/cloudevents+json"

// The attributes of a CloudEvent, and after them what CloudEvents has no attribute for. Positions and versions are
// strings: an integer of CloudEvents has 32 bits.
type attributes struct {
	SpecVersion     string  `json:"specversion"`
	ID              string  `json:"id"`
	Source          string  `json:"source"`
	Type            string  `json:"type"`
	Subject         string  `json:"subject"`
	Time            string  `json:"time"`
	DataContentType string  `json:"datacontenttype"`
	Position        string  `json:"outboxposition"`
	Attempt         uint32  `json:"outboxattempt"`
	TenantID        string  `json:"tenantid"`
	StreamName      *string `json:"streamname,omitempty"`
	Category        *string `json:"streamcategory,omitempty"`
	Version         *string `json:"streamversion,omitempty"`
	OrderID         *string `json:"orderid,omitempty"`
	trace
}

// cloudEvent is the event in the structured JSON format of CloudEvents 1.0.
//
// JSON data is put in as the text that it is, so that it arrives byte for byte as the application wrote it.
func cloudEvent(event *Event, source string, order *string) ([]byte, error) {
	a := attributes{
		SpecVersion: "1.0", ID: event.UUID, Source: source, Type: event.Name, Subject: event.StreamID,
		Time: event.CreatedAt, DataContentType: event.ContentType, Position: strconv.FormatUint(event.Position, 10),
		Attempt: min(event.Attempt, math.MaxInt32), TenantID: event.TenantID, StreamName: event.StreamName,
		Category: event.Category, OrderID: order, trace: traceOf(event.Context),
	}
	if event.Version != nil {
		version := strconv.FormatUint(*event.Version, 10)
		a.Version = &version
	}
	key, data := `,"data":`, event.Data
	if event.ContentType == "" {
		a.DataContentType = "application/json"
	} else {
		key, data = `,"data_base64":`, `"`+base64.StdEncoding.EncodeToString([]byte(event.Data))+`"`
	}
	head, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{head[:len(head)-1], []byte(key), []byte(data), []byte("}")}, nil), nil
}
