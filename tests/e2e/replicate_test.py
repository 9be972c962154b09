#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof replicate: what it refuses, what it leaves alone, and how it starts, stops and recovers."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, asof_json, commit, counter_of, make_counter, wait_for  # noqa: E402

NOBODY = 65534


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Refused(harness.Case):
    """One clear line, the documented status, nothing left behind."""

    def refused(self, *args, status, texts, **kw):
        started = time.monotonic()
        self.assert_fails(asof("replicate", *args, **kw), status, *texts)
        self.assertLess(time.monotonic() - started, 10)

    def test_rollback_journal(self):
        db = self.open_db(journal_mode="DELETE")
        make_counter(db)
        before = digest(self.db_path)
        self.refused(self.db_path, self.archive, status=1, texts=["trades.db", "--enable-wal"])
        self.assertEqual(digest(self.db_path), before)
        self.assertFalse(os.path.exists(self.db_path + "-wal"))

    def test_enable_wal(self):
        db = sqlite3.connect(self.db_path)
        make_counter(db)
        db.commit()
        db.close()
        r = self.replicate("--enable-wal")
        r.wait_ready()
        db = sqlite3.connect(self.db_path)
        self.assertEqual(db.execute("PRAGMA journal_mode").fetchone()[0], "wal")
        db.execute("UPDATE counter SET n = n + 1")
        db.commit()
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        db.close()
        self.assertEqual(counter_of(self.restore("--latest")), 1)

    def test_no_database(self):
        with open(self.db_path, "wb") as f:
            f.write(b"certainly no database " * 1000)
        self.refused(self.db_path, self.archive, status=4, texts=["trades.db"])

    def test_short_file(self):
        with open(self.db_path, "wb") as f:
            f.write(b"SQLite format 3\0")
        self.refused(self.db_path, self.archive, status=4, texts=["trades.db"])

    def test_missing(self):
        self.refused(self.path("none.db"), self.archive, status=3, texts=["none.db"])
        self.refused(self.path("none", "x.db"), self.archive, status=3, texts=["none"])

    def test_folder_for_a_database(self):
        run = asof("replicate", self.dir, self.archive)
        self.assertIn(run.returncode, (1, 2, 4))
        self.assertRegex(run.stderr, r"\Aasof: [^\n]+\n\Z")

    def test_archive_is_a_file(self):
        make_counter(self.open_db())
        with open(self.archive, "wb"):
            pass
        run = asof("replicate", self.db_path, self.archive)
        self.assert_fails(run, 2, "archive", "not a directory")
        self.assertNotIn("does not exist", run.stderr)

    def test_archive_in_a_missing_folder(self):
        """One folder is made; a whole path that is not there is more likely a mistake."""
        make_counter(self.open_db())
        archive = self.path("a", "b", "archive")
        self.refused(self.db_path, archive, status=3, texts=[archive])
        self.assertFalse(os.path.exists(self.path("a")))

    @unittest.skipIf(os.geteuid() != 0, "needs root for a read-only mount")
    def test_read_only_archive(self):
        make_counter(self.open_db())
        os.mkdir(self.archive)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", self.archive],
                       check=True)
        self.refused(self.db_path, self.archive, status=1, texts=["archive", "Read-only"])

    def need_program_for_others(self):
        above = os.path.abspath(harness.ASOF)
        while above != "/":
            above = os.path.dirname(above)
            if not os.stat(above).st_mode & 1:
                self.skipTest(f"the program lies where others have no access: {above}")

    @unittest.skipIf(os.geteuid() != 0, "needs root to become somebody else")
    def test_database_of_somebody_else(self):
        """Readable, but its -shm not to be written: no lock can be had, waiting mends nothing."""
        self.need_program_for_others()
        make_counter(self.open_db())
        os.chmod(self.dir, 0o755)
        os.mkdir(self.archive)
        os.chown(self.archive, NOBODY, NOBODY)
        run = asof("replicate", self.db_path, self.archive, user=NOBODY, group=NOBODY,
                   extra_groups=[], timeout=60)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("run asof as the application's user", run.stderr.splitlines()[-1])

    def test_hard_link(self):
        """It is captured; that commits through its other name are not is told."""
        make_counter(self.open_db())
        os.link(self.db_path, self.path("other.db"))
        r = self.replicate()
        r.wait_ready()
        self.assertIn("2 names (hard links)", r.log())

    @unittest.skipIf(os.geteuid() != 0, "needs root to become somebody else")
    def test_archive_of_somebody_else(self):
        self.need_program_for_others()
        make_counter(self.open_db())
        os.mkdir(self.archive, 0o755)
        for path in (self.dir, self.db_path, self.db_path + "-wal", self.db_path + "-shm"):
            os.chown(path, NOBODY, NOBODY)
        self.refused(self.db_path, self.archive, status=1, texts=["ermission denied"],
                     user=NOBODY, group=NOBODY, extra_groups=[])


class OneWriter(harness.Case):
    def test_second_replicator(self):
        db = self.open_db()
        make_counter(db)
        first = self.replicate()
        first.wait_ready()
        self.assert_fails(asof("replicate", self.db_path, self.archive), 1, "trades.db")
        commit(db)
        first.wait_known()
        self.assertEqual(first.stop(), 0)
        self.assertEqual(counter_of(self.restore("--latest")), 1)

    def test_another_database_of_that_name(self):
        db = self.open_db()
        make_counter(db)
        first = self.replicate()
        first.wait_ready()
        first.stop()
        os.mkdir(self.path("elsewhere"))
        other = self.path("elsewhere", "trades.db")
        make_counter(self.open_db(other))
        self.assert_fails(asof("replicate", other, self.archive), 1, self.db_path, other)
        again = self.replicate()
        commit(db)
        again.wait_ready()
        again.wait_known()
        self.assertEqual(again.stop(), 0)

    def test_two_databases_side_by_side(self):
        db = self.open_db()
        other = self.open_db(self.path("ohlc.db"))
        make_counter(db)
        make_counter(other)
        a = self.replicate()
        a.wait_ready()
        b = self.replicate(db=self.path("ohlc.db"))
        wait_for("both", lambda: len([
            d for d in asof_json("status", "--archive", self.archive)["databases"]
            if d["last_txid"] and d["writer_alive"]]) == 2)
        commit(db)
        commit(other)
        commit(other)
        self.assertEqual((a.stop(), b.stop()), (0, 0))
        self.assertEqual(counter_of(self.restore("--latest", "--db", "trades.db")), 1)
        self.assertEqual(counter_of(self.restore("--latest", "--db", "ohlc.db")), 2)
        self.assert_fails(asof("log", "--archive", self.archive), 2, "ohlc.db, trades.db")


class LeavesAlone(harness.Case):
    def schema(self, path):
        db = sqlite3.connect(path)
        rows = db.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema")
        rows = list(rows) + [db.execute(f"PRAGMA {p}").fetchone() for p in (
            "application_id", "user_version", "schema_version", "journal_mode", "auto_vacuum")]
        db.close()
        return rows

    def test_idle_database(self):
        """Attach and detach change no byte of the database or its WAL."""
        db = self.open_db(wal_autocheckpoint=0)
        make_counter(db)
        for _ in range(50):
            commit(db)
        files = [self.db_path, self.db_path + "-wal"]
        before = [digest(p) for p in files], self.schema(self.db_path)
        r = self.replicate()
        r.wait_ready()
        time.sleep(1)
        self.assertEqual([digest(p) for p in files], before[0])
        self.assertEqual(r.stop(), 0)
        self.assertEqual(([digest(p) for p in files], self.schema(self.db_path)), before)

    def test_same_bytes_as_without_asof(self):
        """The same statements with asof and without it give the same file."""
        twin_path = self.path("twin", "trades.db")
        os.mkdir(self.path("twin"))
        db, twin = self.open_db(), self.open_db(twin_path)
        statements = ["CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)"]
        statements += [f"INSERT INTO t (text) VALUES (printf('%0{n % 900}d', {n}))"
                       for n in range(2000)]
        statements += ["DELETE FROM t WHERE id % 3 = 0", "VACUUM",
                       "UPDATE t SET text = text || 'x'", "DROP TABLE t"]
        statements += ["CREATE TABLE u AS SELECT 1 AS a", "PRAGMA wal_checkpoint(PASSIVE)"]
        for d in (db, twin):
            d.execute("CREATE TABLE first (a)")
        r = self.replicate()
        r.wait_ready()
        for sql in statements:
            db.execute(sql)
            twin.execute(sql)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        db.close()
        twin.close()
        self.assertEqual(sorted(n for n in os.listdir(self.dir) if n.startswith("trades")),
                         ["trades.db"])
        self.assertEqual(self.schema(self.db_path), self.schema(twin_path))
        self.assertEqual(digest(self.db_path), digest(twin_path))

    def test_a_schema_that_our_sqlite_cannot_read(self):
        """The application's may be newer; capture asks for no schema."""
        db = self.open_db()
        make_counter(db)
        commit(db)
        db.execute("PRAGMA writable_schema = ON")
        db.execute("INSERT INTO sqlite_master VALUES ('table', 'new', 'new', 0, "
                   "'CREATE TABLE new (a INTEGER SOME NEW WORD ! 1)')")
        r = self.replicate()
        r.wait_ready()
        commit(db)
        r.wait_known()
        db.execute("PRAGMA wal_checkpoint")
        with open(self.restore("--latest"), "rb") as restored, open(self.db_path, "rb") as live:
            self.assertEqual(restored.read(), live.read())

    def test_modes_of_the_archive(self):
        make_counter(self.open_db())
        os.chmod(self.db_path, 0o644)
        r = self.replicate(prefix=["sh", "-c", 'umask 0; exec "$@"', "sh"])
        r.wait_ready()
        self.assertEqual(r.stop(), 0)
        for folder, _, files in os.walk(self.archive):
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700, folder)
            for name in files:
                path = os.path.join(folder, name)
                self.assertEqual(os.stat(path).st_mode & 0o177, 0, path)


class StartStop(harness.Case):
    def test_stopped_behind_the_first_snapshot(self):
        """Nothing was committed since the first snapshot; what comes after a restart counts on."""
        db = self.open_db()
        make_counter(db)
        for n in range(1, 5):
            commit(db)
            r = self.replicate()
            r.wait_ready()
            r.wait_known()
            self.assertEqual(r.stop(), 0)
            self.assertEqual(counter_of(self.restore("--latest")), n)

    def test_sigterm_captures_the_last_commit(self):
        db = self.open_db()
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            for _ in range(100):
                commit(db)
            started = time.monotonic()
            self.assertEqual(r.stop(sig), 0, r.log())
            self.assertLess(time.monotonic() - started, 5)
            n, = db.execute("SELECT n FROM counter").fetchone()
            self.assertEqual(counter_of(self.restore("--latest")), n)
            r = self.replicate()
            r.wait_ready()
        self.assertEqual(r.stop(), 0)
        self.assertEqual(asof_json("status", "--archive", self.archive)["databases"][0]
                         ["gap_count"], 0)

    def test_killed_again_and_again(self):
        db = self.open_db()
        make_counter(db)
        for i in range(5):
            r = self.replicate()
            r.wait_ready()
            for _ in range(30):
                commit(db)
            time.sleep(0.02 * i)
            r.stop(signal.SIGKILL)
            commit(db)
        r = self.replicate()
        r.wait_ready()
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        n, = db.execute("SELECT n FROM counter").fetchone()
        self.assertEqual(counter_of(self.restore("--latest")), n)
        status, = asof_json("status", "--archive", self.archive)["databases"]
        self.assertEqual(status["gap_count"], 0)
        txids = [c["txid"] for c in asof_json("log", "--archive", self.archive)["commits"]]
        self.assertEqual([counter_of(self.restore("--tx", t)) for t in txids[-n::7]],
                         list(range(1, n + 1, 7)))

    def test_missed_checkpoints_are_a_declared_gap_or_none(self):
        """Stopped while the application goes on, with checkpoints: nothing is pretended."""
        db = self.open_db()
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        commit(db)
        self.assertEqual(r.stop(), 0)
        for _ in range(20):
            commit(db)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        r = self.replicate()
        r.wait_known()
        commit(db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        status, = asof_json("status", "--archive", self.archive)["databases"]
        self.assertEqual(status["gap_count"], 1)
        gap = status["gaps"][0]
        self.assertEqual(counter_of(self.restore("--tx", gap["from_txid"])), 1)
        self.assertEqual(counter_of(self.restore("--tx", gap["to_txid"])), 21)
        self.assertEqual(counter_of(self.restore("--latest")), 22)
        middle = asof("restore", "--at", self.between(gap["from"], gap["to"]), "-o",
                      self.path("x.db"), "--archive", self.archive)
        self.assert_fails(middle, 3, gap["from"], gap["to"])

    def rest(self, r):
        """Idle for so long that its files are older than what is known."""
        began = time.time()
        wait_for("the word of the replicator", lambda: self.known_until() > began + 1.5)
        self.assertEqual(r.stop(), 0)

    def known_until(self):
        status, = asof_json("status", "--archive", self.archive)["databases"]
        return self.epoch(status["known_until"])

    def test_a_database_at_rest_declares_no_gap(self):
        """Nothing was written while asof was away: there is no gap, and no commit either."""
        db = self.open_db()
        make_counter(db)
        commit(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(3):
            r = self.replicate()
            r.wait_ready()
            self.rest(r)
        self.assertNotIn("gap", r.log())
        status, = asof_json("status", "--archive", self.archive)["databases"]
        self.assertEqual((status["gap_count"], status["last_txid"]), (0, 1))
        r = self.replicate()
        r.wait_ready()
        r.wait_known()  # it has looked: what is written before that may be a gap
        commit(db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        status, = asof_json("status", "--archive", self.archive)["databases"]
        self.assertEqual((status["gap_count"], status["last_txid"]), (0, 2))
        self.assertEqual(counter_of(self.restore("--latest")), 2)

    def test_wait_for_what_restores(self):
        """A commit that is captured and stands on no snapshot is not what anybody waits for."""
        db = self.open_db()
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        commit(db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        # By a clock that is behind it has all that is committed by now.
        words = ["faketime", "-f", "-1h", ASOF, "wait", "trades.db", "--archive", self.archive,
                 "--timeout", "0"]
        env = {**os.environ,
               "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
        run = subprocess.run(words, check=False, capture_output=True, text=True, env=env)
        self.assertEqual(run.returncode, 0, run.stderr)
        shutil.rmtree(os.path.join(self.archive, "local", "trades.db", "snapshot"))
        run = subprocess.run(words, check=False, capture_output=True, text=True, env=env)
        self.assert_fails(run, 1, "trades.db")

    def test_there_and_back_is_a_gap(self):
        """No page differs, and yet there were states in between that nobody captured."""
        db = self.open_db()
        make_counter(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        r = self.replicate()
        r.wait_ready()
        self.rest(r)
        for n in (7, 0):
            db.execute("UPDATE counter SET n = ?", (n,))
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        r = self.replicate()
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.assertIn("gap declared", r.log())
        status, = asof_json("status", "--archive", self.archive)["databases"]
        self.assertEqual(status["gap_count"], 1)

    def between(self, a, b):
        """A moment inside, as epoch."""
        return f"@{(self.epoch(a) + self.epoch(b)) / 2:.6f}"

    def epoch(self, text):
        whole, _, fraction = text.rstrip("Z").partition(".")
        return (int(subprocess.run(["date", "-u", "-d", whole + "Z", "+%s"], check=True,
                                   stdout=subprocess.PIPE).stdout)
                + float("0." + (fraction or "0")))

    def test_standard_error_closed(self):
        """The log has nowhere to go; that is no reason to stop, nor to write it elsewhere."""
        db = self.open_db()
        make_counter(db)
        r = self.replicate(prefix=["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"])
        r.wait_ready()
        commit(db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.assertEqual(counter_of(self.restore("--latest")), 1)

    def test_a_file_that_was_cut(self):
        """Its -wal alone is no database: one line says so, and status for as long as it is so."""
        db = self.open_db(wal_autocheckpoint=0)
        harness.make_counter(db)
        harness.commit(db, 200)
        db.execute("PRAGMA wal_checkpoint")
        harness.commit(db)
        with open(self.db_path, "rb") as f:
            whole = f.read()
        os.truncate(self.db_path, 200)
        replicator = self.replicate()

        def says(key):
            run = harness.asof("status", "--json", "--archive", self.archive)
            rows = json.loads(run.stdout)["databases"] if run.returncode == 0 else []
            return rows[0][key] if rows else None
        why = harness.wait_for("the reason", lambda: says("reason"))
        self.assertRegex(why, r"\Apage 1 of \d+ is neither in '.*trades.db' \(0 whole pages\) nor in its -wal")
        text = harness.asof("status", "--archive", self.archive).stdout
        self.assertRegex(text, r"replicator +running, page 1 of ")
        told = [line for line in replicator.log().splitlines() if why[:60] in line]
        self.assertEqual(len(told), 1, replicator.log())
        with open(self.db_path, "r+b") as f:
            f.write(whole)
        harness.wait_for("an end of it", lambda: says("last_txid") and not says("reason"))
        self.assertIsNone(says("reason"))
        os.truncate(self.db_path, 200)  # what a writer that is gone said does not count
        harness.wait_for("the reason", lambda: says("reason"))
        replicator.stop(signal.SIGKILL)
        self.assertIsNone(says("reason"))



@unittest.skipIf(os.geteuid() != 0, "needs root for a small filesystem")
class FullDisk(harness.Case):
    def test_goes_on_when_space_is_back(self):
        small = self.path("small")
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", small], check=True)
        archive = os.path.join(small, "archive")
        db = self.open_db()
        make_counter(db)
        r = self.replicate(archive=archive)
        r.wait_ready()
        commit(db)
        r.wait_known()
        ballast = os.path.join(small, "ballast")
        with open(ballast, "wb") as f:
            f.write(b"\0" * (shutil.disk_usage(small).free - (256 << 10)))
        slowest = 0.0
        for _ in range(200):
            started = time.monotonic()
            commit(db, n_rows=200)
            slowest = max(slowest, time.monotonic() - started)
        self.assertLess(slowest, 3.0, "the application had to wait")
        # More than its queue holds: capture keeps its place, and the end is none the worse for it.
        db.execute("CREATE TABLE big(b)")
        for _ in range(20):
            db.execute("INSERT INTO big VALUES(randomblob(4000000))")
        time.sleep(1)
        self.assertTrue(r.alive(), r.log())
        self.assertRegex(r.log(), "(?i)space")
        os.unlink(ballast)
        r.wait_known()
        commit(db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        n, = db.execute("SELECT n FROM counter").fetchone()
        self.assertEqual(counter_of(self.restore("--latest", archive=archive)), n)

    def test_a_gap_is_declared_once(self):
        """However often its lineage can not be written down."""
        small = self.path("small")
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=60", "none", small],
                       check=True)
        db = self.open_db()
        make_counter(db)
        r = self.replicate(archive=os.path.join(small, "archive"))
        r.wait_ready()
        commit(db)
        r.wait_known()
        db.close()
        ballast = []
        with contextlib.suppress(OSError):
            while True:
                path = os.path.join(small, f"ballast{len(ballast)}")
                os.mknod(path)
                ballast.append(path)
        # Another database takes its place, and goes on being written to.
        other = self.open_db(self.path("other.db"))
        make_counter(other)
        other.close()
        for end in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.db_path + end)
        os.rename(self.path("other.db"), self.db_path)
        db = self.open_db()
        wait_for("trouble", lambda: "archive cannot be written" in r.log())
        for _ in range(100):
            commit(db)
            time.sleep(0.005)  # each by itself is news for the recorder
        for path in ballast:
            os.unlink(path)
        wait_for("the end of the gap", lambda: "gap healed" in r.log())
        self.assertEqual(r.log().count("gap declared"), 1, r.log())
        commit(db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.assertEqual(counter_of(self.restore("--latest", archive=r.archive)), 101)

    def test_full_at_the_start(self):
        small = self.path("small")
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
        db = self.open_db()
        make_counter(db)
        commit(db, n_rows=40000)
        r = self.replicate(archive=os.path.join(small, "archive"))
        # Either it says so and ends, or it waits for space; the application never notices.
        wait_for("a word about space", lambda: "space" in r.log().lower())
        commit(db)
        if not r.alive():
            self.assertEqual(r.stop(), 1)


if __name__ == "__main__":
    harness.main()
