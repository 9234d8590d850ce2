package main

// Event is one entry of the outbox: the contract's `recorded`.
type Event struct {
	UUID, Name  string
	Version     *uint64
	CreatedAt   string
	ContentType string // empty where Data is JSON
	Data        string
	Context     string
	StreamID    string
	StreamName  *string
	Category    *string
	Position    uint64
	TenantID    string
	Attempt     uint32
}

// The cases of the contract's publish-error.
const (
	Retryable = iota
	Rejected
	Unavailable
)

// Their names.
var cases = map[string]uint8{"retryable": Retryable, "rejected": Rejected, "unavailable": Unavailable}

// Error says why an event was not published.
type Error struct {
	Case         uint8
	Reason       string
	RetryAfterMS *uint32
}

func (e *Error) Error() string { return e.Reason }
