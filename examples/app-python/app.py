#!/usr/bin/env python3
"""A shop that tells the outbox about its orders.

It has a table of its own, and appends an event for each order with a plain INSERT, in the transaction that stores the
order: both are there, or neither is.

    outbox init --db app.db
    python3 app.py app.db --orders 5
"""

import argparse
import json
import os
import random
import sqlite3
import sys
import uuid
from contextlib import closing

PRODUCTS = {"tea": 450, "coffee": 620, "cake": 380}  # prices in cents


class OutOfStock(Exception):
    pass


def main():
    arguments = parse_arguments()
    with closing(connect(arguments.database)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, product TEXT NOT NULL, cents INTEGER NOT NULL)")
        for _ in range(arguments.orders):
            order = place_order(db, random.choice(list(PRODUCTS)), quantity=random.randint(1, 3))
            print(f"placed order {order}")
        if arguments.fail:
            show_rollback(db)
        print(f"{count(db, 'orders')} orders are stored, {count(db, 'outbox')} events wait in the outbox")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Places orders and appends an event for each to the outbox.")
    parser.add_argument("database", help="a SQLite file that `outbox init` has prepared")
    parser.add_argument("--orders", type=int, default=5, metavar="N", help="how many to place (5)")
    parser.add_argument("--fail", action="store_true", help="also place an order that fails, to show the rollback")
    return parser.parse_args()


def connect(path):
    """Opens the application's database, in which the outbox lives as a table among its own."""
    advice = f"Run this first: outbox init --db {path}"
    if not os.path.exists(path):
        sys.exit(f"app.py: {path} does not exist. {advice}")
    # isolation_level=None: transactions begin where this program says so. The relay writes to the same file, so that
    # a writer may have to wait for the other, for up to 5 seconds here.
    db = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        outbox = db.execute("SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = 'outbox'").fetchone()
    except sqlite3.DatabaseError as error:
        sys.exit(f"app.py: {path}: {error}")
    if outbox is None:
        sys.exit(f"app.py: {path} has no outbox table. {advice}")
    return db


def place_order(db, product, quantity):
    """Stores an order and its event, both or neither."""
    order = str(uuid.uuid4())
    cents = PRODUCTS[product] * quantity
    db.execute("BEGIN IMMEDIATE")
    with db:  # commits at its end, or rolls back when an exception leaves it
        db.execute("INSERT INTO orders (id, product, cents) VALUES (?, ?, ?)", (order, product, cents))
        append(db, f"order-{order}", "order.placed", {"order": order, "product": product, "quantity": quantity, "cents": cents})
        if quantity > 99:  # found out late, as such things are
            raise OutOfStock(f"there are no {quantity} of {product}")
    return order


def append(db, stream_id, name, data):
    """Appends an event. It belongs to the caller's transaction, and the outbox fills in the other columns."""
    db.execute("INSERT INTO outbox (stream_id, name, data) VALUES (?, ?, ?)", (stream_id, name, json.dumps(data)))


def show_rollback(db):
    orders, events = count(db, "orders"), count(db, "outbox")
    try:
        place_order(db, "cake", quantity=100)
    except OutOfStock as error:
        print(f"an order failed: {error}")
    # There may be fewer events than before, where a relay is at work, but not more.
    left_nothing = count(db, "orders") == orders and count(db, "outbox") <= events
    print("it left neither a row nor an event" if left_nothing else "it left something behind: is another app running?")


def count(db, table):
    return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


if __name__ == "__main__":
    main()
