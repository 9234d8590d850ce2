"""honker, a queue of jobs in SQLite: a batch is claimed, each job's payload is read, the batch is acked."""

import json

import honker

BATCH = 100


def fill(path, events, _):
    db = honker.open(str(path))
    queue = db.queue("outbox")
    with db.transaction() as transaction:
        for stream, data in events:
            queue.enqueue({"stream": stream, "data": json.loads(data)}, tx=transaction)
    # A new database may still be in its WAL.
    with db.transaction():
        pass
    db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def drain(path):
    db = honker.open(str(path))
    queue = db.queue("outbox")
    drained = 0
    while jobs := queue.claim_batch("worker", BATCH):
        for job in jobs:
            job.payload
        drained += queue.ack_batch([job.id for job in jobs], "worker")
    db.close()
    return drained
