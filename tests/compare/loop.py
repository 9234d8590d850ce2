"""What one writes in Python in an afternoon, over the relay's own table: read a group, publish each, delete the group."""

import json
import sqlite3

GROUP = 100


def publish(event):
    """Nothing: what is measured is the rest."""


def drain(synchronous):
    def run(path):
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        drained = 0
        while True:
            rows = db.execute(
                "SELECT position, stream_id, name, uuid, created_at, context, data FROM outbox ORDER BY position LIMIT ?",
                (GROUP,),
            ).fetchall()
            if not rows:
                db.close()
                return drained
            for row in rows:
                publish({"stream": row[1], "name": row[2], "uuid": row[3], "at": row[4], "data": json.loads(row[6])})
            db.execute("DELETE FROM outbox WHERE position BETWEEN ? AND ?", (rows[0][0], rows[-1][0]))
            drained += len(rows)

    return run
