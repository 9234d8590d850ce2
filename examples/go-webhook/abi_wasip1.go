package main

import (
	"time"
	"unsafe"
)

// The contract's records as the component model lays them out in memory, and the functions that the relay calls. Addresses
// have 32 bits there, and Go's pointers 64.

type address = uint32

// A string, or a list.
type list struct{ at, length uint32 }

type optionString struct {
	some  uint8
	value list
}

type recorded struct {
	wrapped struct {
		uuid, name list
		version    struct {
			some  uint8
			value uint64
		}
		createdAt list
		data      struct {
			isBinary          uint8
			jsonOrType, bytes list
		}
		context list
	}
	stream struct {
		id             list
		name, category optionString
	}
	position uint64
	tenantID list
	attempt  uint32
}

// result<_, publish-error>
type published struct {
	isErr uint8
	err   struct {
		tag        uint8
		reason     list
		retryAfter struct {
			some uint8
			ms   uint32
		}
	}
}

// result<_, string>
type configured struct {
	isErr  uint8
	reason list
}

// What the relay reads after a call is kept until the next one, and not on a stack, which Go may move.
var (
	publishedNow  published
	configuredNow configured
	reasonNow     string
)

// What the relay wrote for the call that is under way. Nothing else refers to it, and Go would collect it.
var lowered [][]byte

//go:wasmexport cabi_realloc
func cabiRealloc(_ address, _, _, size uint32) address {
	room := make([]byte, max(size, 8))
	lowered = append(lowered, room)
	return address(uintptr(unsafe.Pointer(&room[0])))
}

func pointer[T any](at address) *T { return (*T)(unsafe.Pointer(uintptr(at))) }

func addressOf[T any](value *T) address { return address(uintptr(unsafe.Pointer(value))) }

// A copy: the memory is Go's to collect when the call is done.
func (l list) String() string { return string(unsafe.Slice(pointer[byte](l.at), l.length)) }

func listOf(text string) list {
	return list{address(uintptr(unsafe.Pointer(unsafe.StringData(text)))), uint32(len(text))}
}

func (o optionString) pointer() *string {
	if o.some == 0 {
		return nil
	}
	value := o.value.String()
	return &value
}

func (r *recorded) event() *Event {
	event := &Event{
		UUID: r.wrapped.uuid.String(), Name: r.wrapped.name.String(), CreatedAt: r.wrapped.createdAt.String(),
		Context: r.wrapped.context.String(), StreamID: r.stream.id.String(), StreamName: r.stream.name.pointer(),
		Category: r.stream.category.pointer(), Position: r.position, TenantID: r.tenantID.String(), Attempt: r.attempt,
	}
	if r.wrapped.version.some != 0 {
		event.Version = &r.wrapped.version.value
	}
	event.Data = r.wrapped.data.jsonOrType.String()
	if r.wrapped.data.isBinary != 0 {
		event.ContentType, event.Data = event.Data, r.wrapped.data.bytes.String()
	}
	return event
}

//go:wasmexport outbox:publisher/publisher@0.1.0#publish
func exportPublish(event address) address {
	failed := publish(pointer[recorded](event).event(), post, now)
	lowered = nil
	publishedNow = published{}
	if failed != nil {
		reasonNow = failed.Reason
		publishedNow.isErr, publishedNow.err.tag, publishedNow.err.reason = 1, failed.Case, listOf(reasonNow)
		if failed.RetryAfterMS != nil {
			publishedNow.err.retryAfter.some, publishedNow.err.retryAfter.ms = 1, *failed.RetryAfterMS
		}
	}
	return addressOf(&publishedNow)
}

//go:wasmexport outbox:publisher/lifecycle@0.1.0#configure
func exportConfigure() address {
	err := configure(environment())
	lowered = nil
	configuredNow = configured{}
	if err != nil {
		reasonNow = err.Error()
		configuredNow = configured{1, listOf(reasonNow)}
	}
	return addressOf(&configuredNow)
}

//go:wasmimport wasi:cli/environment@0.2.12 get-environment
func getEnvironment(to unsafe.Pointer)

//go:wasmimport wasi:clocks/wall-clock@0.2.12 now
func wallClock(to unsafe.Pointer)

func environment() map[string]string {
	getEnvironment(answerAt())
	settings := map[string]string{}
	all := *answer[list]()
	for _, setting := range unsafe.Slice(pointer[[2]list](all.at), all.length) {
		settings[setting[0].String()] = setting[1].String()
	}
	return settings
}

func now() time.Time {
	wallClock(answerAt())
	datetime := answer[struct {
		seconds     uint64
		nanoseconds uint32
	}]()
	return time.Unix(int64(datetime.seconds), int64(datetime.nanoseconds))
}

// Where an imported function writes its answer: not on a stack either.
var answerRoom [16]uint64

func answerAt() unsafe.Pointer { answerRoom = [16]uint64{}; return unsafe.Pointer(&answerRoom) }

func answer[T any]() *T { return (*T)(unsafe.Pointer(&answerRoom)) }
