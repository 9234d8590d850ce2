"""python-event-sourcery's own outbox over SQLAlchemy: `outbox.run` with its limit of 100, then a commit."""

import json
from collections import Counter
from uuid import NAMESPACE_URL, uuid5

from event_sourcery import NO_VERSIONING, Event, StreamId
from event_sourcery_sqlalchemy import SQLAlchemyBackend, configure_models
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Session


class Base(DeclarativeBase):
    pass


configure_models(Base)


class OrderPlaced(Event):
    order: int
    filler: str


def backend(session):
    return SQLAlchemyBackend().configure(session).with_outbox()


def fill(path, events, _):
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        store = backend(session).event_store
        for stream, data in events:
            store.append(OrderPlaced(**json.loads(data)), stream_id=StreamId(uuid5(NAMESPACE_URL, stream)), expected_version=NO_VERSIONING)
        session.commit()
    engine.dispose()


def drain(path):
    engine = create_engine(f"sqlite:///{path}")
    delivered = Counter()
    with Session(engine) as session:
        outbox = backend(session).outbox
        while True:
            before = delivered["events"]
            outbox.run(lambda event: delivered.update(events=1))
            session.commit()
            if delivered["events"] == before:
                break
    engine.dispose()
    return delivered["events"]
