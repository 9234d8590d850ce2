"""Why an event was not published. Any other exception means that it may be tried again."""


class Rejected(Exception):
    """This event will never be accepted."""


class Unavailable(Exception):
    """No event can be delivered now."""

    def __init__(self, reason: str, retry_after_ms: int | None = None):
        super().__init__(reason)
        self.retry_after_ms = retry_after_ms


class Retryable(Exception):
    """This event may be accepted later."""
