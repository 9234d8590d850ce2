import json

from .errors import Rejected

# The largest whole number that every reader of JSON holds exactly.
MAX_ORDER = 2**53 - 1


def order_id(event) -> str:
    """Decodes the data of an `order.placed`: which order it is about."""
    data = event.wrapped_event.data.value
    if not isinstance(data, str):
        raise Rejected(f"order.placed: its data is {data.content_type}, not JSON")
    match json.loads(data):
        case {"order": str(order)}:
            return order
        case {"order": int(order)} if not isinstance(order, bool) and 0 <= order <= MAX_ORDER:
            return str(order)
    raise Rejected('order.placed: its data has no "order" that is a whole number or a string')
