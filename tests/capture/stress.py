#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The oracle for capture: hostile applications, and a log that must lack nothing unsaid.

    stress.py CAPTURE_DUMP [--seconds N] [--writers N] [--checkpointers N] [--kill]
              [--strict] [--negative] [--autocheckpoint N] [--busy N] [--seed N] [--keep]
              [--pause MS] [--restart] [--readers N]

Each transaction bumps a counter and chains a hash.  Transactions have random sizes, some
roll back, some roll back to a savepoint, caches are small enough to spill, a checkpointer
cycles PASSIVE, FULL, RESTART and TRUNCATE, --kill kills writers with SIGKILL, --restart
kills the harness so and resumes.  At the end the image replayed from the log must be the
database, byte for byte, after the application's own last checkpoint.  --negative makes
capture hold no locks and look seldom: it must then miss commits, and declare every one.
"""
import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import framelog  # noqa: E402


def connect(path, options, cache=10):
    db = sqlite3.connect(path, timeout=20, isolation_level=None)
    db.execute("PRAGMA wal_autocheckpoint=%d" % options.autocheckpoint)
    db.execute("PRAGMA synchronous=%s" % options.synchronous)
    db.execute("PRAGMA cache_size=%d" % cache)
    return db


def create(path, options):
    db = connect(path, options)
    db.execute("PRAGMA page_size=%d" % options.page_size)
    db.execute("PRAGMA journal_mode=wal")
    db.execute("CREATE TABLE counter(id INTEGER PRIMARY KEY, v TEXT)")
    db.execute("CREATE TABLE data(id INTEGER PRIMARY KEY, v BLOB)")
    db.execute("INSERT INTO counter VALUES(1, ?)", ("CTR:%016d:%s:" % (0, "0" * 16),))
    db.close()


def bump(db):
    row = db.execute("SELECT v FROM counter").fetchone()[0]
    n, h = int(row[4:20]) + 1, row[21:37].encode()
    db.execute("UPDATE counter SET v=?",
               ("CTR:%016d:%s:" % (n, framelog.next_hash(h, n).decode()),))


def some_rows(db, rng, count):
    for _ in range(count):
        db.execute("INSERT OR REPLACE INTO data VALUES(?, ?)",
                   (rng.randrange(20000), rng.randbytes(rng.choice((20, 200, 1500)))))


def one_transaction(db, rng):
    kind = rng.random()
    size = rng.choice((0, 1, 1, 1, 3, 10)) if kind < 0.97 else rng.randrange(100, 900)
    db.execute("BEGIN IMMEDIATE")
    some_rows(db, rng, size)
    if rng.random() < 0.15:
        db.execute("SAVEPOINT s")
        some_rows(db, rng, rng.choice((5, 60)))
        db.execute("ROLLBACK TO s")
        db.execute("RELEASE s")
        some_rows(db, rng, rng.choice((0, 40)))
    if rng.random() < 0.05:
        db.execute("DELETE FROM data WHERE id % 7 = ?", (rng.randrange(7),))
    bump(db)
    db.execute("ROLLBACK" if rng.random() < 0.15 else "COMMIT")


def writer(path, options, seed, until):
    rng = random.Random(seed)
    db = connect(path, options)
    while time.time() < until:
        try:
            one_transaction(db, rng)
        except sqlite3.OperationalError:
            if db.in_transaction:
                db.execute("ROLLBACK")
        if rng.random() < 0.002:
            db.close()
            db = connect(path, options)
        if options.pause:
            time.sleep(options.pause / 1000 * rng.random() * 2)
    db.close()


def checkpointer(path, options, seed, until):
    rng = random.Random(seed)
    db = connect(path, options)
    while time.time() < until:
        time.sleep(rng.uniform(0.0005, 0.008))
        mode = rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
        db.execute("PRAGMA busy_timeout=%d" % rng.choice((0, 50)))
        try:
            db.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchall()
        except sqlite3.OperationalError:
            pass
    db.close()


def reader(path, options, seed, until):
    rng = random.Random(seed)
    db = connect(path, options)
    while time.time() < until:
        try:
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM data").fetchone()
            time.sleep(rng.uniform(0, 0.03))
            db.execute("COMMIT")
        except sqlite3.OperationalError:
            pass
    db.close()


def spawn(target, *args):
    p = multiprocessing.Process(target=target, args=args)
    p.start()
    return p


def harness(options, path, log, resume=False):
    extra = ["--resume"] if resume else []
    if options.strict:
        extra.append("--strict")
    if options.negative:
        extra += ["--poll", "12"]
    if options.busy:
        extra += ["--busy", str(options.busy)]
    if options.batch:
        extra += ["--batch", str(options.batch)]
    out = subprocess.Popen([options.capture_dump, path, log] + extra, stdout=subprocess.DEVNULL)
    time.sleep(0.2)
    return out


def run_load(options, path, log):
    rng = random.Random(options.seed)
    until = time.time() + options.seconds
    capture = harness(options, path, log)
    writers = [spawn(writer, path, options, rng.random(), until) for _ in range(options.writers)]
    others = [spawn(checkpointer, path, options, rng.random(), until)
              for _ in range(options.checkpointers)]
    others += [spawn(reader, path, options, rng.random(), until) for _ in range(options.readers)]
    kills = restarts = 0
    while time.time() < until:
        time.sleep(rng.uniform(0.05, 0.25))
        if options.kill:
            i = rng.randrange(len(writers))
            writers[i].kill()
            writers[i].join()
            writers[i] = spawn(writer, path, options, rng.random(), until)
            kills += 1
        if options.restart and rng.random() < 0.2:
            capture.kill()
            capture.wait()
            capture = harness(options, path, log, resume=True)
            restarts += 1
    for p in writers + others:
        p.join()
    # While the wal-index still lives: SQLite before 3.50.2 leaves frames with bad checksums
    # after ROLLBACK TO with a spilled cache, and a recovery would stop at them.
    busy = last_checkpoint(path)
    capture.send_signal(signal.SIGTERM)
    code = capture.wait()
    return code, kills, restarts, busy


def last_checkpoint(path):
    db = sqlite3.connect(path, timeout=5)
    until = time.time() + 30
    busy = 1
    while busy and time.time() < until:   # a slow sink holds on to the WAL
        busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    db.close()
    return busy


def check_final(verdict, path, busy):
    db = sqlite3.connect(path, timeout=5)
    ok = db.execute("PRAGMA integrity_check").fetchone()[0]
    db.close()
    with open(path, "rb") as f:
        live = f.read()
    if busy or ok != "ok":
        return "final checkpoint busy=%s integrity=%s" % (busy, ok[:60])
    if not verdict.image_whole:
        return None if verdict.breaks[1:] else "no image"
    return None if verdict.final_image() == live else "the final image differs"


def report(options, verdict, code, kills, restarts, final):
    after_first = verdict.breaks[1:]
    print("seed=%d commits=%d frames=%d batches=%d breaks=%d (%s) lost=%d kills=%d restarts=%d"
          % (options.seed, verdict.commits, verdict.frames, verdict.batches, len(after_first),
             ",".join(sorted(set(after_first))), verdict.lost, kills, restarts))
    print("harness: %s" % verdict.figures)
    problems = verdict.undeclared[:5]
    if code:
        problems.append("the harness ended with %d" % code)
    if final:
        problems.append(final)
    if verdict.commits < 20:
        problems.append("hardly any commits: the test shows nothing")
    if options.negative and not framelog.figure(verdict, "late"):
        problems.append("no missed commit was found behind a reset: the test shows nothing")
    if options.negative and not verdict.lost:
        problems.append("the negative control lost nothing: the test shows nothing")
    return problems


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("capture_dump")
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--writers", type=int, default=3)
    p.add_argument("--checkpointers", type=int, default=1)
    p.add_argument("--readers", type=int, default=0)
    p.add_argument("--autocheckpoint", type=int, default=10)
    p.add_argument("--synchronous", default="OFF")
    p.add_argument("--page-size", type=int, default=4096)
    p.add_argument("--batch", type=int, default=0)
    p.add_argument("--busy", type=int, default=0)
    p.add_argument("--pause", type=float, default=0)
    p.add_argument("--seed", type=int, default=0)
    for flag in ("kill", "strict", "negative", "restart", "keep"):
        p.add_argument("--" + flag, action="store_true")
    options = p.parse_args()
    options.seed = options.seed or random.randrange(1, 10**6)
    return options


def main():
    options = arguments()
    work = tempfile.mkdtemp(prefix="capture-stress-")
    path, log = os.path.join(work, "live.db"), os.path.join(work, "log")
    create(path, options)
    code, kills, restarts, busy = run_load(options, path, log)
    verdict = framelog.judge(log)
    problems = report(options, verdict, code, kills, restarts, check_final(verdict, path, busy))
    if options.keep:
        print("kept: " + work)
    else:
        shutil.rmtree(work)
    for problem in problems:
        print("FAIL stress " + problem)
    if not problems:
        print("ok stress")
    print("%d passed, %d failed, 0 skipped" % (not problems, bool(problems)))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
