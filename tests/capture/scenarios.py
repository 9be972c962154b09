#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What applications and people do to a database that is being captured, one function each.

    scenarios.py CAPTURE_DUMP [NAME...]        (or the path in $CAPTURE_DUMP)
"""
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import framelog  # noqa: E402


class Failed(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failed(text)

PATIENCE = 60  # seconds: ends what hangs; a machine can stand still for many of them


class Place:
    """A folder with one database, and a harness that captures it."""

    def __init__(self, program):
        self.program = program
        self.work = tempfile.mkdtemp(prefix="capture-scenario-")
        self.path = os.path.join(self.work, "live.db")
        self.log = os.path.join(self.work, "log")
        self.messages = os.path.join(self.work, "messages")
        self.process = None

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.work)

    def connect(self, path=None, timeout=5.0):
        return sqlite3.connect(path or self.path, timeout=timeout, isolation_level=None)

    def create(self, path=None, mode="wal", page_size=4096):
        db = self.connect(path)
        db.execute("PRAGMA page_size=%d" % page_size)
        db.execute("PRAGMA journal_mode=" + mode)
        db.execute("CREATE TABLE counter(id INTEGER PRIMARY KEY, v TEXT)")
        db.execute("CREATE TABLE data(id INTEGER PRIMARY KEY, v BLOB)")
        db.execute("INSERT INTO counter VALUES(1, ?)", ("CTR:%016d:%s:" % (0, "0" * 16),))
        db.close()

    def start(self, *options, wait="attached"):
        messages = open(self.messages, "ab")
        self.process = subprocess.Popen([self.program, self.path, self.log] + list(options),
                                        stdout=subprocess.DEVNULL, stderr=messages)
        messages.close()
        if wait:
            self.wait_message(wait)
            time.sleep(0.05)

    def said(self):
        with open(self.messages) as f:
            return f.read()

    def wait_message(self, text, count=1, seconds=PATIENCE):
        until = time.time() + seconds
        while self.said().count(text) < count:
            check(time.time() < until, "no message '%s' in: %s" % (text, self.said()))
            check(self.process.poll() is None, "the harness ended: " + self.said())
            time.sleep(0.01)

    def wait_captured(self, seconds=PATIENCE):
        """Until the log knows everything committed before now."""
        now_us, until = time.time() * 1e6, time.time() + seconds
        while framelog.judge(self.log).known_until < now_us:
            check(time.time() < until, "not caught up")
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE)
        check(code == 0, "the harness ended with %d: %s" % (code, self.said()))
        for sanitizer in ("runtime error", "Sanitizer"):
            check(sanitizer not in self.said(), self.said())
        return framelog.judge(self.log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def finish(self, breaks=("first",)):
        """Stops, and holds the replayed image against the file."""
        verdict = self.stop()
        check(not verdict.undeclared, str(verdict.undeclared[:3]))
        check(list(breaks) == verdict.breaks, "breaks %s, not %s" % (verdict.breaks, breaks))
        db = self.connect()
        check(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "busy")
        db.close()
        with open(self.path, "rb") as f:
            check(verdict.image_whole, "no image")
            check(verdict.final_image() == f.read(), "the final image differs")
        return verdict


def commit(db, times=1, rows=2):
    for _ in range(times):
        db.execute("BEGIN IMMEDIATE")
        row = db.execute("SELECT v FROM counter").fetchone()[0]
        n, h = int(row[4:20]) + 1, row[21:37].encode()
        for i in range(rows):
            db.execute("INSERT OR REPLACE INTO data VALUES(?, ?)",
                       ((n * 7919 + i) % 5000, os.urandom(300)))
        db.execute("UPDATE counter SET v=?",
                   ("CTR:%016d:%s:" % (n, framelog.next_hash(h, n).decode()),))
        db.execute("COMMIT")


def checkpoint(db, mode="TRUNCATE"):
    return db.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchone()[0]


# ---- the application lives ----

def app_opens_and_closes(p):
    p.create()
    p.start()
    for _ in range(30):
        db = p.connect()
        commit(db)
        db.close()
    check(os.path.exists(p.path + "-wal"), "the WAL was deleted")
    verdict = p.finish()
    check(verdict.commits >= 30, "%d commits" % verdict.commits)


def checkpoints_succeed(p):
    """TRUNCATE and RESTART of a patient application are never refused."""
    p.create()
    p.start()
    db = p.connect()
    for i in range(30):
        commit(db, 5)
        check(checkpoint(db, ("TRUNCATE", "RESTART", "FULL")[i % 3]) == 0, "busy")
    db.close()
    p.finish()


def strict_lacks_nothing(p):
    p.create()
    p.start("--strict")
    db = p.connect()
    db.execute("PRAGMA wal_autocheckpoint=10")
    db.execute("PRAGMA synchronous=OFF")
    for i in range(60):
        commit(db, 20)
        if i % 10 == 9:
            time.sleep(0.02)
            check(checkpoint(db) == 0, "busy")
    db.close()
    verdict = p.finish()
    check(framelog.figure(verdict, "by_count") == 0, verdict.figures)


def transaction_larger_than_cache(p):
    p.create()
    p.start("--batch", "100000")
    db = p.connect()
    db.execute("PRAGMA cache_size=10")
    db.execute("CREATE TABLE big(v BLOB)")
    commit(db)
    db.execute("BEGIN IMMEDIATE")
    row = db.execute("SELECT v FROM counter").fetchone()[0]
    n, h = int(row[4:20]) + 1, row[21:37].encode()
    db.execute("UPDATE counter SET v=?",
               ("CTR:%016d:%s:" % (n, framelog.next_hash(h, n).decode()),))
    for _ in range(2000):
        db.execute("INSERT INTO big VALUES(randomblob(3000))")
    check(not [1 for k, b in framelog.records(p.log) if k == "F" and len(b) > 20 * 4120],
          "frames of an open transaction were taken")
    db.execute("COMMIT")
    commit(db, 3)
    db.close()
    verdict = p.stop()
    verdict.undeclared = [u for u in verdict.undeclared if "without the counter" not in u]
    check(not verdict.undeclared, str(verdict.undeclared))
    check(max(len(b) for k, b in framelog.records(p.log) if k == "F") < 100100, "a large batch")
    check(verdict.breaks == ["first"] and verdict.commits == 6,
          "%s %d" % (verdict.breaks, verdict.commits))


def page_sizes(p):
    for size in (512, 65536):
        for name in ("live.db", "live.db-wal", "live.db-shm", "log"):
            if os.path.exists(os.path.join(p.work, name)):
                os.unlink(os.path.join(p.work, name))
        p.create(page_size=size)
        p.start()
        p.wait_message("attached", 1 if size == 512 else 2)
        db = p.connect()
        commit(db, 20)
        checkpoint(db)
        commit(db, 20)
        db.close()
        p.finish()


def vacuum(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 100, rows=20)
    db.execute("DELETE FROM data WHERE id > 100")
    db.execute("VACUUM")
    commit(db, 10)
    checkpoint(db)
    db.close()
    verdict = p.stop()
    with open(p.path, "rb") as f:
        check(verdict.final_image() == f.read(), "the final image differs")


def busy_sink(p):
    p.create()
    p.start("--busy", "3", "--batch", "20000")
    db = p.connect()
    for _ in range(10):
        commit(db, 10)
        checkpoint(db, "PASSIVE")
    p.wait_captured()
    db.close()
    p.finish()


def cap_is_declared(p):
    p.create()
    p.start("--busy", "400", "--batch", "9000", "--cap", "100000")
    db = p.connect(timeout=10)
    db.execute("PRAGMA wal_autocheckpoint=20")
    for _ in range(60):
        commit(db, 5)
        time.sleep(0.002)
    check(checkpoint(db) == 0, "past the cap the WAL is still held")
    commit(db, 3)
    db.close()
    p.process.send_signal(signal.SIGTERM)
    p.process.wait()
    verdict = framelog.judge(p.log)
    check("past the cap" in p.said(), "no warning")
    check(not verdict.undeclared, str(verdict.undeclared[:3]))


# ---- the application wants the database for itself ----

def missed_commits_are_found(p):
    """Reset between two looks, without a lock: what the new generation left of the old counts."""
    p.create()
    p.start("--poll", "300")
    db = p.connect()
    p.wait_captured()
    for _ in range(6):
        commit(db, 10)
        p.wait_captured()
        commit(db, 5)
        check(checkpoint(db, "RESTART") == 0, "busy")
        commit(db, 1)
        p.wait_captured()
    db.close()
    verdict = p.finish()
    check(framelog.figure(verdict, "late") >= 4, verdict.figures)


def missed_commits_that_are_gone(p):
    """The same where they were cut off, or a second generation could lie between."""
    p.create()
    p.start("--poll", "300")
    db = p.connect()
    p.wait_captured()
    for modes in (["TRUNCATE"], ["RESTART", "RESTART"]):
        commit(db, 10)
        p.wait_captured()
        for mode in modes:
            commit(db, 5)
            check(checkpoint(db, mode) == 0, "busy")
        commit(db, 2)
    p.wait_captured()
    db.close()
    p.finish(("first", "gap", "gap"))


def journal_mode_delete(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 3)
    try:
        mode = db.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
        check(mode == "wal", "left WAL while attached")
    except sqlite3.OperationalError as e:
        check("locked" in str(e), str(e))
    commit(db, 3)
    p.wait_captured()
    verdict = p.stop()
    check(verdict.breaks == ["first"] and not verdict.undeclared, str(verdict.breaks))
    check(db.execute("PRAGMA journal_mode=DELETE").fetchone()[0] == "delete", "after detach")
    commit(db, 2)
    check(subprocess.run([p.program, p.path, p.log, "--resume"], stderr=subprocess.PIPE,
                         stdout=subprocess.DEVNULL).returncode != 0, "rollback mode accepted")
    check(db.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal", "back to WAL")
    commit(db, 2)
    p.start("--resume", wait="continuity broken")
    commit(db, 2)
    db.close()
    p.finish(("first", "gap"))


def exclusive_locking_mode(p):
    p.create()
    p.start()
    app = p.connect(timeout=0.05)
    commit(app, 3)
    app.execute("PRAGMA locking_mode=EXCLUSIVE")
    until, done = time.time() + 8, False
    while not done:
        check(time.time() < until, "the application never got its lock")
        try:
            commit(app)
            done = True
        except sqlite3.OperationalError:
            if app.in_transaction:
                app.execute("ROLLBACK")
            time.sleep(0.02)
    p.wait_message("not attached, waiting")
    commit(app, 3)
    app.close()
    p.wait_message("attached db", 2)
    db = p.connect()
    commit(db, 3)
    db.close()
    verdict = p.stop()
    check(not verdict.undeclared, str(verdict.undeclared[:2]))


def exclusive_by_new_connections(p):
    """Refused at once for as long as we are attached, with nothing left behind: see capture.c."""
    p.create()
    p.start()
    db = p.connect()
    for i in range(30):
        other = p.connect(timeout=0)
        try:
            if i % 2:
                other.execute("PRAGMA locking_mode=EXCLUSIVE")
                other.execute("SELECT count(*) FROM data").fetchone()
            else:
                other.execute("PRAGMA journal_mode=DELETE").fetchone()
            check(False, "got it while asof is attached")
        except sqlite3.OperationalError as e:
            check("locked" in str(e), str(e))
        other.close()
        commit(db)  # no lock that stays would let it
    p.wait_captured()
    check("detaching" not in p.said(), p.said())
    db.close()
    p.finish()


# ---- files change under capture ----

def replaced_by_mv(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 3)
    db.close()
    other = os.path.join(p.work, "other.db")
    p.create(other)
    db = p.connect(other)
    commit(db, 9)
    db.close()
    p.wait_captured()
    for suffix in ("-wal", "-shm"):
        os.rename(p.path + suffix, p.path + ".old" + suffix)
    os.rename(other, p.path)
    p.wait_message("attached db", 2)
    p.wait_message("continuity broken")
    db = p.connect()
    commit(db, 4)
    db.close()
    p.finish(("first", "replaced"))


def known_no_longer_than_in_place(p):
    """What another file at the path may hold since is not said to be known."""
    p.create()
    p.start("--poll", "520")
    replaced = []
    for i in range(4):
        other = os.path.join(p.work, "other%d.db" % i)
        p.create(other)
        p.wait_captured()
        p.wait_captured()   # so that the files have just been looked at
        before = p.said().count("why=replaced")
        for suffix in ("-wal", "-shm"):
            os.rename(p.path + suffix, p.path + ".old%d" % i + suffix)
        os.rename(other, p.path)
        replaced.append((before, time.time() * 1e6))
        p.wait_message("why=replaced", before + 1)
    p.wait_captured()
    p.stop()
    # One break for each, or two: a look between the moves finds another -wal already.
    breaks = 0
    for kind, body in framelog.records(p.log):
        if kind == "B":
            breaks += framelog.WHY[struct.unpack_from("<I", body)[0]] == "replaced"
        elif kind == "C":
            known = struct.unpack_from("<q", body)[0]
            for before, moment in replaced:
                check(known <= moment or breaks > before,
                      "known %d us past a replacement" % (known - moment))
    check(len(replaced) <= breaks <= 2 * len(replaced), "%d breaks" % breaks)


def not_attached_while_replaced(p):
    """Between a restore's moving the -wal away and its rename nobody may look."""
    p.create()
    intent = p.path + ".asof-restore.swap"
    open(intent, "w").close()
    p.start(wait="is being replaced by a restore")
    time.sleep(0.3)
    check("attached db" not in p.said(), p.said())
    os.unlink(intent)
    p.wait_message("attached db")
    p.stop()
    # What a restore that died has left is not waited for.
    open(intent, "w").close()
    os.utime(intent, (0, time.time() - 60))
    p.start()
    db = p.connect()
    commit(db, 3)
    db.close()
    p.finish()


def replaced_with_other_page_size(p):
    p.create()
    p.start()
    other = os.path.join(p.work, "other.db")
    p.create(other, page_size=1024)
    for suffix in ("-wal", "-shm"):
        os.unlink(p.path + suffix)
    os.rename(other, p.path)
    p.wait_message("continuity broken")
    time.sleep(1.2)
    db = p.connect()
    commit(db, 4)
    db.close()
    verdict = p.stop()
    check(verdict.breaks[-1] == "page-size" and verdict.page_size == 1024, str(verdict.breaks))


def replaced_by_cp(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 5)
    checkpoint(db)
    with open(p.path, "rb") as f:
        earlier = f.read()
    commit(db, 5, rows=0)   # the size stays, else the application finds it malformed
    checkpoint(db)
    db.close()
    p.wait_captured()
    time.sleep(1.2)
    with open(p.path, "r+b") as f:
        f.write(earlier)
    p.wait_message("continuity broken")
    db = p.connect()
    commit(db, 4)
    db.close()
    p.finish(("first", "replaced"))


def checkpoints_are_no_replacement(p):
    p.create()
    p.start()
    db = p.connect()
    until = time.time() + 4
    while time.time() < until:
        commit(db, 3)
        checkpoint(db, "PASSIVE")
        time.sleep(0.05)
    db.close()
    p.finish()


def sidecars_deleted(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 5)
    checkpoint(db)
    db.close()
    p.wait_captured()
    os.unlink(p.path + "-wal")
    os.unlink(p.path + "-shm")
    p.wait_message("continuity broken")
    db = p.connect()
    commit(db, 5)
    db.close()
    p.wait_captured()
    verdict = p.stop()
    check(set(verdict.breaks[1:]) == {"replaced"}, str(verdict.breaks))
    check(not verdict.undeclared, str(verdict.undeclared[:2]))
    db = p.connect()
    checkpoint(db)
    db.close()
    with open(p.path, "rb") as f:
        check(verdict.final_image() == f.read(), "the final image differs")


def database_removed_and_made_again(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 5)
    db.close()
    p.wait_captured()
    for suffix in ("", "-wal", "-shm"):
        os.unlink(p.path + suffix)
    p.wait_message("not attached, waiting")
    other = os.path.join(p.work, "other.db")
    p.create(other)
    os.rename(other, p.path)
    p.wait_message("continuity broken")
    db = p.connect()
    commit(db, 5)
    db.close()
    p.finish(("first", "replaced"))


# ---- stop, start, die ----

def resume_is_proven(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 5)
    p.stop()
    commit(db, 5)
    p.start("--resume", wait="going on")
    commit(db, 5)
    db.close()
    p.finish()


def resume_not_provable(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 5)
    p.stop()
    commit(db, 5)
    checkpoint(db)
    commit(db, 5)
    p.start("--resume", wait="continuity broken")
    commit(db, 5)
    db.close()
    verdict = p.finish(("first", "gap"))
    check(verdict.lost == 5, "lost %d" % verdict.lost)


def killed_and_resumed(p):
    p.create()
    p.start("--batch", "9000")
    db = p.connect()
    for i in range(8):
        commit(db, 5, rows=1 + i * 4)
        p.kill()
        commit(db, 1)
        p.start("--resume", "--batch", "9000", wait=None)
        p.wait_message("going on", i + 1)
    db.close()
    p.finish()


def rewound(p):
    """Power loss: the database comes back without commits that were captured."""
    p.create()
    p.start()
    db = p.connect()
    commit(db, 5)
    p.wait_captured()
    p.stop()
    frames = (os.path.getsize(p.path + "-wal") - 32) // 4120
    for suffix in ("", "-wal"):
        shutil.copy(p.path + suffix, p.path + ".copy" + suffix)
    db.close()
    for suffix in ("", "-wal"):
        os.rename(p.path + ".copy" + suffix, p.path + suffix)
    os.truncate(p.path + "-wal", 32 + (frames - 2) * 4120)
    p.start("--resume", wait="continuity broken")
    db = p.connect()
    commit(db, 2)
    db.close()
    p.finish(("first", "rewound"))


# ---- what capture leaves alone, and what it costs ----

def nothing_is_written(p):
    p.create()
    db = p.connect()
    commit(db, 20)

    def state():
        with open(p.path, "rb") as f, open(p.path + "-wal", "rb") as w:
            return hashlib.sha256(f.read() + w.read()).hexdigest(), os.stat(p.path).st_mtime_ns
    before = state()
    p.start()
    p.wait_captured()
    p.stop()
    check(state() == before, "the database or its WAL changed")
    schema = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    check(schema == 2, "%d tables" % schema)
    db.close()


def idle_costs_nothing(p):
    p.create()
    p.start()
    db = p.connect()
    commit(db, 5)
    time.sleep(0.5)

    def cpu():
        with open("/proc/%d/schedstat" % p.process.pid) as f:
            return int(f.read().split()[0]) / 1e9
    begin, seconds = cpu(), 4
    time.sleep(seconds)
    share = (cpu() - begin) / seconds
    db.close()
    p.finish()
    print("   idle: %.3f %% of a core" % (share * 100))
    check(share < 0.002, "%.2f %% of a core while idle" % (share * 100))


def captured_soon(p):
    """Commits of an otherwise idle application are seen within milliseconds."""
    p.create()
    p.start()
    db = p.connect()
    times = []
    for _ in range(40):
        commit(db)
        times.append(time.time() * 1e6)
        time.sleep(0.03)
    db.close()
    p.finish()
    observed = []
    for kind, body in framelog.records(p.log):
        if kind == "F" and not body[0] & 1:
            observed.append(int.from_bytes(body[12:20], "little"))
    late = sorted(o - t for o, t in zip(observed[-40:], times))
    check(len(observed) >= 40, "%d batches" % len(observed))
    print("   commit returned to observed: p50 %.2f ms, max %.2f ms"
          % (late[20] / 1000, late[-1] / 1000))
    check(late[20] < 20e3, "p50 %.1f ms" % (late[20] / 1000))


def captured_soon_by_hub(p):
    start = p.start
    p.start = lambda *options, **more: start("--hub", *options, **more)
    captured_soon(p)


def replaced_by_mv_with_hub(p):
    start = p.start
    p.start = lambda *options, **more: start("--hub", *options, **more)
    replaced_by_mv(p)


# ---- what is no WAL database ----

def refusal(p, expected, path=None):
    r = subprocess.run([p.program, path or p.path, p.log], stderr=subprocess.PIPE,
                       stdout=subprocess.DEVNULL, timeout=10)
    text = r.stderr.decode()
    check(r.returncode != 0 and text.count("\n") == 1 and re.search(expected, text), text)


def rollback_journal_refused(p):
    p.create(mode="delete")
    refusal(p, r"error refused: .*rollback-journal mode \(run .sqlite3 .*--enable-wal\)")
    with open(p.path, "rb") as f:
        check(f.read(20)[18] == 1, "it was converted unasked")


def enable_wal(p):
    p.create(mode="delete")
    p.start("--enable-wal")
    db = p.connect()
    check(db.execute("PRAGMA journal_mode").fetchone()[0] == "wal", "not in WAL mode")
    commit(db, 5)
    db.close()
    p.finish()


def missing_file(p):
    refusal(p, "error not-found: .*live.db")


def not_a_database(p):
    with open(p.path, "wb") as f:
        f.write(b"no database " * 1000)
    refusal(p, "error damaged: .*not an SQLite database")
    refusal(p, "error damaged: .*not a regular file", p.work)


SCENARIOS = [app_opens_and_closes, checkpoints_succeed, strict_lacks_nothing,
             transaction_larger_than_cache, page_sizes, vacuum, busy_sink, cap_is_declared,
             missed_commits_are_found, missed_commits_that_are_gone,
             journal_mode_delete, exclusive_locking_mode, exclusive_by_new_connections,
             replaced_by_mv,
             known_no_longer_than_in_place, not_attached_while_replaced,
             replaced_with_other_page_size, replaced_by_cp, checkpoints_are_no_replacement,
             sidecars_deleted, database_removed_and_made_again, resume_is_proven,
             resume_not_provable, killed_and_resumed, rewound,
             nothing_is_written, idle_costs_nothing, captured_soon, captured_soon_by_hub,
             replaced_by_mv_with_hub, rollback_journal_refused,
             enable_wal, missing_file, not_a_database]


def main():
    arguments = sys.argv[1:]
    program = os.environ.get("CAPTURE_DUMP") or arguments.pop(0)
    passed = failed = 0
    for scenario in SCENARIOS:
        if arguments and scenario.__name__ not in arguments:
            continue
        place = Place(program)
        try:
            scenario(place)
            print("ok " + scenario.__name__, flush=True)
            passed += 1
        except Exception as e:  # a scenario that breaks has failed
            text = str(e) if isinstance(e, Failed) else traceback.format_exc()
            print("FAIL %s %s" % (scenario.__name__, text), flush=True)
            failed += 1
        place.close()
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
