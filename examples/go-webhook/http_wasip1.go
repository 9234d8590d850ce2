package main

import (
	"fmt"
	"runtime"
	"strconv"
	"unsafe"
)

// One POST over wasi:http. Everything that is opened is dropped, children before their parents, as wasi asks for.

const (
	timeoutNS = 10_000_000_000
	// Of a stream, so much can be written at once.
	chunkBytes = 4096
	// Of a response's body, so much is read, since it goes into an error's reason.
	bodyKeptBytes = 500
)

type handle = uint32

//go:wasmimport wasi:http/types@0.2.12 [static]fields.from-list
func fieldsFromList(at unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]fields.get
func fieldsGet(fields handle, at unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]fields
func dropFields(fields handle)

//go:wasmimport wasi:http/types@0.2.12 [constructor]outgoing-request
func newOutgoingRequest(fields handle) handle

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.body
func requestBody(request handle, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-method
func setMethod(request handle, method uint32, at unsafe.Pointer, length uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-scheme
func setScheme(request handle, some, scheme uint32, at unsafe.Pointer, length uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-authority
func setAuthority(request handle, some uint32, at unsafe.Pointer, length uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-request.set-path-with-query
func setPathWithQuery(request handle, some uint32, at unsafe.Pointer, length uint32) uint32

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-request
func dropRequest(request handle)

//go:wasmimport wasi:http/types@0.2.12 [constructor]request-options
func newRequestOptions() handle

//go:wasmimport wasi:http/types@0.2.12 [method]request-options.set-connect-timeout
func setConnectTimeout(options handle, some uint32, ns uint64) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]request-options.set-first-byte-timeout
func setFirstByteTimeout(options handle, some uint32, ns uint64) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]request-options.set-between-bytes-timeout
func setBetweenBytesTimeout(options handle, some uint32, ns uint64) uint32

//go:wasmimport wasi:http/outgoing-handler@0.2.12 handle
func handleRequest(request handle, some uint32, options handle, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [method]outgoing-body.write
func bodyWrite(body handle, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [static]outgoing-body.finish
func finishBody(body handle, some uint32, trailers handle, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]outgoing-body
func dropBody(body handle)

//go:wasmimport wasi:io/streams@0.2.12 [method]output-stream.blocking-write-and-flush
func blockingWriteAndFlush(stream handle, at unsafe.Pointer, length uint32, to unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]output-stream
func dropOutput(stream handle)

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.subscribe
func subscribe(future handle) handle

//go:wasmimport wasi:http/types@0.2.12 [method]future-incoming-response.get
func futureGet(future handle, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]future-incoming-response
func dropFuture(future handle)

//go:wasmimport wasi:io/poll@0.2.12 [method]pollable.block
func block(pollable handle)

//go:wasmimport wasi:io/poll@0.2.12 [resource-drop]pollable
func dropPollable(pollable handle)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.status
func responseStatus(response handle) uint32

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.headers
func responseHeaders(response handle) handle

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-response.consume
func consume(response handle, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]incoming-response
func dropResponse(response handle)

//go:wasmimport wasi:http/types@0.2.12 [method]incoming-body.stream
func bodyStream(body handle, to unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.12 [static]incoming-body.finish
func finishIncoming(body handle) handle

//go:wasmimport wasi:http/types@0.2.12 [resource-drop]future-trailers
func dropTrailers(trailers handle)

//go:wasmimport wasi:io/streams@0.2.12 [method]input-stream.blocking-read
func blockingRead(stream handle, length uint64, to unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.12 [resource-drop]input-stream
func dropInput(stream handle)

//go:wasmimport wasi:io/error@0.2.12 [resource-drop]error
func dropError(err handle)

// result<handle, _>, where the error has at most 4 bytes of alignment.
type resultHandle struct {
	isErr uint8
	ok    handle
}

// result<_, stream-error>, and result<list<u8>, stream-error>
type resultStream struct {
	isErr uint8
	a, b  uint32
}

// Drops what a stream's error brought along, and says whether there was one.
func (r *resultStream) failed() bool {
	if r.isErr != 0 && uint8(r.a) == 0 {
		dropError(r.b)
	}
	return r.isErr != 0
}

// result<handle, error-code>
type resultHTTP struct {
	isErr uint8
	_     [7]uint8
	value uint64 // the handle, or in its first byte the error's code
}

func data(text string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(text)), uint32(len(text))
}

// post posts body, and waits for the whole response.
func post(to destination, headers []header, body []byte) (response, *Error) {
	request, failed := newRequest(to, append(headers, header{"content-length", strconv.Itoa(len(body))}))
	if failed != nil {
		return response{}, failed
	}
	requestBody(request, answerAt())
	outgoing := answer[resultHandle]().ok
	handleRequest(request, 1, options(), answerAt())
	sent := *answer[resultHTTP]()
	if sent.isErr != 0 {
		dropBody(outgoing)
		return response{}, unanswered(to, uint8(sent.value))
	}
	future := handle(sent.value)
	write(outgoing, body)

	pollable := subscribe(future)
	block(pollable)
	dropPollable(pollable)
	futureGet(future, answerAt())
	// option<result<result<incoming-response, error-code>>>
	got := *answer[struct {
		some uint8
		_    [7]uint8
		gone uint8
		_    [7]uint8
		http resultHTTP
	}]()
	dropFuture(future)
	switch {
	case got.some == 0 || got.gone != 0:
		return response{}, &Error{Case: Retryable, Reason: "the response is gone"}
	case got.http.isErr != 0:
		return response{}, unanswered(to, uint8(got.http.value))
	}
	return read(handle(got.http.value)), nil
}

func newRequest(to destination, headers []header) (handle, *Error) {
	entries := make([][2]list, 0, len(headers))
	for _, h := range headers {
		entries = append(entries, [2]list{listOf(h.name), listOf(h.value)})
	}
	fieldsFromList(unsafe.Pointer(&entries[0]), uint32(len(entries)), answerAt())
	runtime.KeepAlive(headers) // entries has addresses only
	fields := *answer[resultHandle]()
	if fields.isErr != 0 {
		return 0, &Error{Case: Rejected, Reason: "a header is refused"}
	}
	request := newOutgoingRequest(fields.ok)
	scheme := uint32(0)
	if to.https {
		scheme = 1
	}
	authority, authorityLength := data(to.authority)
	path, pathLength := data(to.pathWithQuery)
	refused := setMethod(request, 2, nil, 0) + setScheme(request, 1, scheme, nil, 0) +
		setAuthority(request, 1, authority, authorityLength) + setPathWithQuery(request, 1, path, pathLength)
	if refused != 0 {
		dropRequest(request)
		return 0, &Error{Case: Unavailable, Reason: fmt.Sprintf("WEBHOOK_URL is refused: %s", to)}
	}
	return request, nil
}

func options() handle {
	options := newRequestOptions()
	setConnectTimeout(options, 1, timeoutNS)
	setFirstByteTimeout(options, 1, timeoutNS)
	setBetweenBytesTimeout(options, 1, timeoutNS)
	return options
}

// A server may answer, and hang up, before it has read everything: its answer counts, so that errors do not.
func write(outgoing handle, body []byte) {
	bodyWrite(outgoing, answerAt())
	stream := answer[resultHandle]().ok
	for len(body) > 0 {
		chunk := body[:min(len(body), chunkBytes)]
		body = body[len(chunk):]
		blockingWriteAndFlush(stream, unsafe.Pointer(&chunk[0]), uint32(len(chunk)), answerAt())
		if answer[resultStream]().failed() {
			break
		}
	}
	dropOutput(stream) // a body is finished only when nothing can write to it any more
	finishBody(outgoing, 0, 0, answerAt())
}

func read(received handle) response {
	r := response{status: uint16(responseStatus(received))}
	headers := responseHeaders(received)
	name, length := data("retry-after")
	fieldsGet(headers, name, length, answerAt())
	if values := *answer[list](); values.length > 0 {
		r.retryAfter = pointer[list](values.at).String()
	}
	dropFields(headers)
	// What is published needs no reason, and a body without an end takes nothing from it.
	if r.status < 200 || r.status > 299 {
		r.body = beginningOfBody(received)
	}
	dropResponse(received)
	return r
}

// The status is the answer: a body that breaks off takes nothing from it.
func beginningOfBody(received handle) string {
	consume(received, answerAt())
	incoming := answer[resultHandle]().ok
	bodyStream(incoming, answerAt())
	stream := answer[resultHandle]().ok
	var kept []byte
	for len(kept) < bodyKeptBytes {
		blockingRead(stream, uint64(bodyKeptBytes-len(kept)), answerAt())
		read := *answer[resultStream]()
		if read.failed() {
			break
		}
		kept = append(kept, list{read.a, read.b}.String()...)
	}
	dropInput(stream)
	dropTrailers(finishIncoming(incoming))
	return toValid(kept)
}

// What failed before anything was sent has nothing to do with the event: no other could be delivered either, and none is to use
// up its attempts for it. What failed later may have to do with it.
func unanswered(to destination, code uint8) *Error {
	const destinationIPProhibited, httpRequestDenied = 4, 15
	if code == destinationIPProhibited || code == httpRequestDenied {
		reason := fmt.Sprintf("the relay denied the request to %s (wasi:http error %d): the publisher has no grant for it", to, code)
		return &Error{Case: Unavailable, Reason: reason}
	}
	failed := &Error{Case: Retryable, Reason: fmt.Sprintf("the request to %s failed (wasi:http error %d)", to, code)}
	if isUnsent(code) {
		failed.Case = Unavailable
	}
	return failed
}

// The name is unknown, the destination refuses the connection, cannot be reached in time, or is not trusted.
func isUnsent(code uint8) bool {
	switch code {
	case 0, 1, 2, 3, 5: // DNS-timeout, DNS-error, destination-not-found, -unavailable, -IP-unroutable
		return true
	case 6, 8, 11: // connection-refused, -timeout, -limit-reached
		return true
	case 12, 13, 14: // TLS-protocol-error, -certificate-error, -alert-received
		return true
	case 19, 37: // HTTP-request-URI-invalid, configuration-error
		return true
	}
	return false
}
