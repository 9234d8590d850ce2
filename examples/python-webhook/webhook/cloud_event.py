import json
from base64 import b64encode

from .trace import trace

CONTENT_TYPE = "application/cloudevents+json"


def to_json(event, source: str, order: str | None = None) -> str:
    """The event in the structured JSON format of CloudEvents 1.0.

    JSON data is put in as the text that it is, so that it arrives byte for byte as the application wrote it. Positions
    and versions are strings: an integer of CloudEvents has 32 bits.
    """
    wrapped, stream, data = event.wrapped_event, event.stream_id, event.wrapped_event.data.value
    is_json = isinstance(data, str)
    attributes = {
        "specversion": "1.0",
        "id": wrapped.uuid,
        "source": source,
        "type": wrapped.name,
        "subject": stream.id,
        "time": wrapped.created_at,
        "datacontenttype": "application/json" if is_json else data.content_type,
        "outboxposition": str(event.position),
        "outboxattempt": min(event.attempt, 2**31 - 1),
        "tenantid": event.tenant_id,
        "streamname": stream.name,
        "streamcategory": stream.category,
        "streamversion": None if wrapped.version is None else str(wrapped.version),
        "orderid": order,
        **trace(wrapped.context),
    }
    present = {name: value for name, value in attributes.items() if value is not None}
    head = json.dumps(present, ensure_ascii=False, separators=(",", ":")).removesuffix("}")
    member = f'"data":{data}' if is_json else f'"data_base64":"{b64encode(data.bytes).decode()}"'
    return f"{head},{member}}}"
