"""Why an event was not published. Any other exception means that it may be tried again."""


class Failed(Exception):
    """One of those below, with the shortest time to wait where the destination has asked for one."""

    def __init__(self, reason: str, retry_after_ms: int | None = None):
        super().__init__(reason)
        self.retry_after_ms = retry_after_ms


class Rejected(Failed):
    """This event will never be accepted."""


class Unavailable(Failed):
    """No event can be delivered now."""


class Retryable(Failed):
    """This event may be accepted later."""


# As a setting names them.
KINDS = {"retryable": Retryable, "rejected": Rejected, "unavailable": Unavailable}
