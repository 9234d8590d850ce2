"""Drains the same events with the relay and with others, in turn, and prints the median rate of each."""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import loop
import relay
import sourcery

try:
    import honker_queue
except ImportError:
    honker_queue = None


def contenders(options):
    """Each with what fills a database for it, what drains that, and how many events it gets: slow ones get fewer."""
    yield "relay, a component, FULL", relay.fill, relay.drain(options), options.events
    yield "Python loop, groups of 100, FULL", relay.fill, loop.drain("FULL"), options.events
    yield "Python loop, groups of 100, NORMAL", relay.fill, loop.drain("NORMAL"), options.events
    if honker_queue:
        yield "honker, claims of 100, NORMAL", honker_queue.fill, honker_queue.drain, max(options.events // 10, 1)
    yield "python-event-sourcery, outbox.run, FULL", sourcery.fill, sourcery.drain, max(options.events // 50, 1)


def events(count, size):
    data = json.dumps({"order": 42, "filler": "x" * max(size - 27, 0)})
    return [(f"order-{number % 1000}", data) for number in range(count)]


def rate(drain, full, events):
    """Events a second, on a copy of its own."""
    with tempfile.TemporaryDirectory(dir=full.parent) as folder:
        copy = Path(folder) / "app.db"
        shutil.copy(full, copy)
        with copy.open("rb+") as file:
            os.fsync(file.fileno())
        began = time.perf_counter()
        drained = drain(copy)
        took = time.perf_counter() - began
    if drained != events:
        sys.exit(f"compare: {drained} of {events} events were drained")
    return events / took


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outbox", required=True, help="the program")
    parser.add_argument("--publisher", required=True, help="a component that does nothing")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--bytes", type=int, default=1_024, help="of data of each event")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", help="where the databases are made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        options.cache = Path(folder) / "cache"
        sides = []
        for number, (name, fill, drain, count) in enumerate(contenders(options)):
            full = Path(folder) / f"{number}.db"
            fill(full, events(count, options.bytes), options)
            sides.append((name, full, drain, count))
        rates = {name: [] for name, *_ in sides}
        for turn in range(options.repeat):
            print(f"compare: {turn + 1} of {options.repeat}", file=sys.stderr)
            for name, full, drain, count in sides:
                rates[name].append(rate(drain, full, count))
    show(rates, options.json)


def show(rates, as_json):
    ours = next(iter(rates.values()))
    figures = {
        name: {
            "per_s": statistics.median(theirs),
            "relay_times_as_fast": statistics.median(our / their for our, their in zip(ours, theirs)),
            "samples": theirs,
        }
        for name, theirs in rates.items()
    }
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{'':<42} {'events/s':>10}  the relay is so many times as fast")
    for name, figure in figures.items():
        print(f"{name:<42} {figure['per_s']:>10.0f} {figure['relay_times_as_fast']:>8.2f}")


if __name__ == "__main__":
    main()
