from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from .destination import Destination
from .errors import Rejected, Retryable, Unavailable

MAX_U32 = 2**32 - 1


@dataclass
class Response:
    status: int
    retry_after: str | None = None
    # The beginning of it.
    body: str = ""


def check(destination: Destination, response: Response, now: datetime) -> None:
    """Raises what the status of a response means for the event; 2xx means that it is published."""
    body = response.body.strip()
    reason = f"{destination} answered {response.status}" + (f": {body}" if body else "")
    match response.status:
        case status if 200 <= status < 300:
            return
        case 429 | 503:
            raise Unavailable(reason, wait_ms(response.retry_after, now))
        case 408 | 409:
            raise Retryable(reason)
        case status if 400 <= status < 500:
            raise Rejected(reason)
        case _:
            raise Retryable(reason)


def wait_ms(retry_after: str | None, now: datetime) -> int | None:
    """`Retry-After` is a number of seconds, or a date."""
    value = (retry_after or "").strip()
    if value.isascii() and value.isdigit():
        return min(int(value) * 1000, MAX_U32)
    try:
        date = parsedate_to_datetime(value).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return min(max(int((date - now).total_seconds() * 1000), 0), MAX_U32)
