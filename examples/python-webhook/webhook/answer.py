import re
from dataclasses import dataclass
from datetime import datetime, timezone

from .destination import Destination
from .errors import Failed, Rejected, Retryable, Unavailable

MAX_U32 = 2**32 - 1
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
DATES = [
    re.compile(r"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4}) (?P<time>[0-9:]{8}) GMT"),
    re.compile(r"[A-Z][a-z]+, (?P<day>[0-9]{2})-(?P<month>[A-Z][a-z]{2})-(?P<year>[0-9]{2}) (?P<time>[0-9:]{8}) GMT"),
    re.compile(r"[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-9][0-9]) (?P<time>[0-9:]{8}) (?P<year>[0-9]{4})"),
]


@dataclass
class Response:
    status: int
    retry_after: str | None = None
    # The beginning of it.
    body: str = ""


def check(destination: Destination, response: Response, not_found: type[Failed], now: datetime) -> None:
    """Raises what the status of a response means for the event; 2xx means that it is published. `not_found` is what 404 and
    410 mean.
    """
    if 200 <= response.status < 300:
        return
    body = response.body.strip()
    reason = f"{destination} answered {response.status}" + (f": {body}" if body else "")
    raise meaning(response.status, not_found)(reason, wait_ms(response.retry_after, now))


def meaning(status: int, not_found: type[Failed]) -> type[Failed]:
    """What a status means that is not 2xx: see webhook.md."""
    match status:
        case 401 | 403 | 407 | 429 | 503:
            return Unavailable
        case 404 | 410:
            return not_found
        case 408 | 409 | 421 | 423 | 425:
            return Retryable
        case _ if 400 <= status < 500:
            return Rejected
        case _:
            return Retryable


def wait_ms(retry_after: str | None, now: datetime) -> int | None:
    """`Retry-After` is a number of seconds, or a date."""
    value = (retry_after or "").strip()
    if value.isascii() and value.isdigit():
        # More digits than these are as long as can be said, and too many for int().
        return min(int(value[-10:]) * 1000, MAX_U32) if len(value.lstrip("0")) <= 10 else MAX_U32
    date = parse_date(value, now)
    return None if date is None else min(max(int((date - now).total_seconds() * 1000), 0), MAX_U32)


def parse_date(value: str, now: datetime) -> datetime | None:
    """A date in one of the three formats of HTTP."""
    for pattern in DATES:
        if found := pattern.fullmatch(value):
            part = found.groupdict()
            year = int(part["year"])
            if len(part["year"]) == 2:  # one that would be more than 50 years ahead is past
                year += now.year - now.year % 100
                year -= 100 if year > now.year + 50 else 0
            try:
                time = [int(digits) for digits in part["time"].split(":")]
                return datetime(year, MONTHS.index(part["month"]) + 1, int(part["day"]), *time, tzinfo=timezone.utc)
            except ValueError:  # no such month, day or hour
                return None
    return None
