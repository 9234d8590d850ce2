"""Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers."""

from datetime import datetime, timezone

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import environment
from wit_world.imports.outbox_publisher_types import (
    Failure,
    PublishError_Rejected,
    PublishError_Retryable,
    PublishError_Unavailable,
    Recorded,
)

from . import cloud_event, http, trace
from .answer import check
from .destination import Destination
from .errors import KINDS, Failed, Rejected, Retryable, Unavailable
from .order import order_id


class Lifecycle(exports.Lifecycle):
    def configure(self) -> None:
        settings = dict(environment.get_environment())
        url = settings.get("WEBHOOK_URL")
        if not url:
            raise Err("the environment variable WEBHOOK_URL is missing: where to post to")
        try:
            Publisher.destination = Destination.parse(url)
        except ValueError as error:
            raise Err(f"the environment variable WEBHOOK_URL {error}")
        kind = settings.get("WEBHOOK_NOT_FOUND") or "rejected"
        if kind not in KINDS:
            raise Err(
                f'the environment variable WEBHOOK_NOT_FOUND is "{kind}": retryable, rejected and unavailable are possible'
            )
        Publisher.not_found = KINDS[kind]
        Publisher.source = settings.get("WEBHOOK_SOURCE") or "/outbox"


class Publisher(exports.Publisher):
    destination: Destination
    source: str
    not_found: type[Failed]

    def publish(self, event: Recorded) -> None:
        try:
            match event.wrapped_event.name:
                case "order.placed":
                    self.post(event, order_id(event))
                case "order.viewed":
                    pass  # of no interest to the destination
                case _:
                    self.post(event)
        except Rejected as error:
            raise Err(PublishError_Rejected(str(error)))
        except Unavailable as error:
            raise Err(PublishError_Unavailable(Failure(str(error), error.retry_after_ms)))
        except Retryable as error:
            raise Err(PublishError_Retryable(Failure(str(error), error.retry_after_ms)))
        except Exception as error:  # a mistake in here, too, may pass
            raise Err(PublishError_Retryable(Failure(str(error) or repr(error), None)))

    def post(self, event: Recorded, order: str | None = None) -> None:
        headers = {"content-type": cloud_event.CONTENT_TYPE, "idempotency-key": event.wrapped_event.uuid}
        headers |= trace.headers(trace.trace(event.wrapped_event.context))
        response = http.post(self.destination, headers, cloud_event.to_json(event, self.source, order).encode())
        check(self.destination, response, self.not_found, datetime.now(timezone.utc))
