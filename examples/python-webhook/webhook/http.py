"""One POST over wasi:http. Nothing of it is open any more when it returns: what a `with` encloses is dropped at its end."""

from componentize_py_types import Err, Ok
from wit_world.imports import outgoing_handler
from wit_world.imports import wasi_http_types as errors
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingBody,
    IncomingResponse,
    Method_Post,
    OutgoingBody,
    OutgoingRequest,
    RequestOptions,
    Scheme_Http,
    Scheme_Https,
)

from .answer import Response
from .destination import Destination
from .errors import Retryable, Unavailable

TIMEOUT_NS = 10_000_000_000
# Of a stream, so much can be written at once.
CHUNK_BYTES = 4096
# Of a response's body, so much is read, since it goes into an error's reason.
BODY_KEPT_BYTES = 500
# The name is unknown, the destination refuses the connection, cannot be reached in time, or is not trusted.
UNSENT = (
    errors.ErrorCode_DnsTimeout,
    errors.ErrorCode_DnsError,
    errors.ErrorCode_DestinationNotFound,
    errors.ErrorCode_DestinationUnavailable,
    errors.ErrorCode_DestinationIpUnroutable,
    errors.ErrorCode_ConnectionRefused,
    errors.ErrorCode_ConnectionTimeout,
    errors.ErrorCode_ConnectionLimitReached,
    errors.ErrorCode_TlsProtocolError,
    errors.ErrorCode_TlsCertificateError,
    errors.ErrorCode_TlsAlertReceived,
    errors.ErrorCode_HttpRequestUriInvalid,
    errors.ErrorCode_ConfigurationError,
)


def post(destination: Destination, headers: dict[str, str], body: bytes) -> Response:
    """Posts `body`, and waits for the whole response."""
    try:
        request = new_request(destination, headers | {"content-length": str(len(body))})
        outgoing = request.body()
        with outgoing_handler.handle(request, options()) as future:
            # A server may answer, and hang up, before it has read everything: its answer counts, not the broken pipe.
            broken = write(outgoing, body)
            with future.subscribe() as answered:
                answered.block()
            match future.get():
                case Ok(Ok(response)):
                    with response:
                        return read(response)
                case Ok(Err(code)):
                    raise Err(code)
                case _:
                    raise broken or Retryable("the response is gone")
    except Err as error:
        raise failure(destination, error.value)


def new_request(destination: Destination, headers: dict[str, str]) -> OutgoingRequest:
    request = OutgoingRequest(Fields.from_list([(name, value.encode()) for name, value in headers.items()]))
    request.set_method(Method_Post())
    request.set_scheme(Scheme_Https() if destination.https else Scheme_Http())
    request.set_authority(destination.authority)
    request.set_path_with_query(destination.path_with_query)
    return request


def options() -> RequestOptions:
    options = RequestOptions()
    options.set_connect_timeout(TIMEOUT_NS)
    options.set_first_byte_timeout(TIMEOUT_NS)
    options.set_between_bytes_timeout(TIMEOUT_NS)
    return options


def write(outgoing: OutgoingBody, body: bytes) -> Err | None:
    """Writes and finishes a body; returns the error where it broke off."""
    try:
        with outgoing.write() as stream:
            for start in range(0, len(body), CHUNK_BYTES):
                stream.blocking_write_and_flush(body[start : start + CHUNK_BYTES])
        OutgoingBody.finish(outgoing, None)
        return None
    except Err as error:
        return error


def read(response: IncomingResponse) -> Response:
    with response.headers() as headers:
        retry_after = headers.get("retry-after")
    status = response.status()
    # What is published needs no reason, and a body without an end takes nothing from it.
    body = "" if 200 <= status < 300 else beginning(response)
    return Response(status, retry_after[0].decode(errors="replace") if retry_after else None, body)


def beginning(response: IncomingResponse) -> str:
    """The beginning of the body. The status is the answer: a body that breaks off takes nothing from it."""
    body = b""
    incoming = response.consume()
    try:
        with incoming.stream() as stream:
            while len(body) < BODY_KEPT_BYTES:
                body += stream.blocking_read(BODY_KEPT_BYTES - len(body))
    except Err:
        pass  # this is how a stream ends
    with IncomingBody.finish(incoming):
        return body.decode(errors="replace")


def failure(destination: Destination, cause) -> Exception:
    """What failed before anything was sent has nothing to do with the event: no other could be delivered either, and none is
    to use up its attempts for it. What failed later may have to do with it.
    """
    name = type(cause).__name__.removeprefix("ErrorCode_")
    if isinstance(cause, (errors.ErrorCode_DestinationIpProhibited, errors.ErrorCode_HttpRequestDenied)):
        return Unavailable(
            f"the relay denied the request to {destination} ({name}): the publisher has no grant for it"
        )
    kind = Unavailable if isinstance(cause, UNSENT) else Retryable
    return kind(f"the request to {destination} failed: {name}")
