"""The trace that an event belongs to, as W3C's Trace Context has it: an extension of CloudEvents, and headers."""

import json

# A longer one is no header's value.
CHARACTERS_MAX = 512


def trace(context: str) -> dict[str, str]:
    """What an event's context has of a trace: itself, or where python-event-sourcery puts it. A context of another shape is
    the application's own affair, and no reason not to deliver.
    """
    root = json.loads(context)
    nested = root
    for name in ("components", "opentelemetry", "values"):
        nested = nested.get(name) if isinstance(nested, dict) else None
    for carrier in (root, nested):
        if isinstance(carrier, dict) and isinstance(carrier.get("traceparent"), str):
            found = {name: carrier.get(name) for name in ("traceparent", "tracestate")}
            return {name: value for name, value in found.items() if isinstance(value, str)}
    return {}


def headers(trace: dict[str, str]) -> dict[str, str]:
    """Those of its values that can be a header's."""
    found = {name: value for name, value in trace.items() if is_header_value(value)}
    return found if "traceparent" in found else {}


def is_header_value(value: str) -> bool:
    return 0 < len(value) <= CHARACTERS_MAX and value.isascii() and value.isprintable()
