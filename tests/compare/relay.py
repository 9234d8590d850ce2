"""This repository's own: one pass of `outbox run`, the start of its process included."""

import json
import sqlite3
import subprocess


def fill(path, events, options):
    subprocess.run([options.outbox, "init", "--db", path], check=True, stdout=subprocess.DEVNULL)
    db = sqlite3.connect(path)
    with db:
        db.executemany("INSERT INTO outbox (stream_id, name, data) VALUES (?, 'order.placed', ?)", events)
    db.close()
    # The publisher is compiled here, and not again.
    run(path, options, limit=0)


def drain(options):
    return lambda path: run(path, options, limit=1_000_000_000)


def run(path, options, limit):
    command = [options.outbox, "run", "--db", path, "--publisher", options.publisher, "--cache", options.cache]
    ran = subprocess.run([*command, "--limit", str(limit), "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(ran.stdout)["published"]
