#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""trading_app.py DB [--rate N] [--seconds S]: a small application that trades futures on paper.

It opens, closes and cancels trades and keeps a journal, a few transactions a second, in one
SQLite database in WAL mode, as an application does that knows nothing of asof.  What it trades
follows from the number of trades so far, so that two runs do the same.  SIGTERM ends it between
two transactions.
"""

import argparse
import datetime
import os
import random
import signal
import sqlite3
import sys
import time

INSTRUMENTS = {"ES": 4781.25, "NQ": 16832.5, "CL": 72.68, "GC": 2051.6, "ZB": 122.1}

SCHEMA = """
CREATE TABLE IF NOT EXISTS trades (
    id INTEGER PRIMARY KEY,
    instrument TEXT NOT NULL,
    side TEXT NOT NULL CHECK (side IN ('long', 'short')),
    quantity INTEGER NOT NULL,
    entry_price REAL NOT NULL,
    exit_price REAL,
    profit REAL,
    opened_at TEXT NOT NULL,
    closed_at TEXT
);
CREATE INDEX IF NOT EXISTS trades_open ON trades (instrument) WHERE closed_at IS NULL;
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY,
    trade_id INTEGER REFERENCES trades (id),
    written_at TEXT NOT NULL,
    note TEXT NOT NULL
);
"""


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def connect(path):
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    db.execute("PRAGMA busy_timeout = 30000")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.executescript(SCHEMA)
    return db


def open_trade(db, chance):
    instrument = chance.choice(sorted(INSTRUMENTS))
    price = round(INSTRUMENTS[instrument] * chance.uniform(0.98, 1.02), 2)
    cursor = db.execute(
        "INSERT INTO trades (instrument, side, quantity, entry_price, opened_at)"
        " VALUES (?, ?, ?, ?, ?)",
        (instrument, chance.choice(("long", "short")), chance.randint(1, 10), price, now()))
    db.execute("INSERT INTO journal (trade_id, written_at, note) VALUES (?, ?, ?)",
               (cursor.lastrowid, now(), f"opened {instrument} at {price}"))


def close_trade(db, chance):
    row = db.execute("SELECT id, side, quantity, entry_price FROM trades"
                     " WHERE closed_at IS NULL ORDER BY id LIMIT 1").fetchone()
    if not row:
        return
    trade, side, quantity, entry = row
    price = round(entry * chance.uniform(0.99, 1.012), 2)
    profit = round((price - entry) * quantity * (1 if side == "long" else -1), 2)
    db.execute("UPDATE trades SET exit_price = ?, profit = ?, closed_at = ? WHERE id = ?",
               (price, profit, now(), trade))
    db.execute("INSERT INTO journal (trade_id, written_at, note) VALUES (?, ?, ?)",
               (trade, now(), f"closed at {price}, {profit:+.2f}"))


def step(db):
    db.execute("BEGIN IMMEDIATE")
    n, = db.execute("SELECT coalesce(max(id), 0) FROM journal").fetchone()
    chance = random.Random(n)
    still_open, = db.execute("SELECT count(*) FROM trades WHERE closed_at IS NULL").fetchone()
    if still_open > 8 or (still_open > 2 and chance.random() < 0.3):
        close_trade(db, chance)
    else:
        open_trade(db, chance)
    db.execute("COMMIT")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("db")
    parser.add_argument("--rate", type=float, default=4, help="transactions a second")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long; 0: never")
    options = parser.parse_args()
    stopping = []
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: stopping.append(True))

    os.makedirs(os.path.dirname(os.path.abspath(options.db)), exist_ok=True)
    db = connect(options.db)
    started = time.monotonic()
    n = 0
    print(f"trading on {options.db}", flush=True)
    while not stopping and not (options.seconds and time.monotonic() - started > options.seconds):
        step(db)
        n += 1
        pause = started + n / options.rate - time.monotonic()
        if pause > 0:
            time.sleep(pause)
    db.close()
    print(f"stopped after {n} transactions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
