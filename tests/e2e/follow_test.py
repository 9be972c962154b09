#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300
"""asof restore --follow: a standby that any SQLite reads, whatever happens to its keeper."""

import contextlib
import datetime
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, make_counter, wait_for  # noqa: E402

DIE_IO = os.path.join(os.path.dirname(ASOF), "..", "tests", "soak", "die_io.so")


def one_state(path):
    """The counter of a database in which it is right with the rows, and nothing else is wrong."""
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        db.execute("BEGIN")
        n, total, problem = db.execute(
            "SELECT (SELECT n FROM counter), (SELECT total FROM sums),"
            "(SELECT group_concat(integrity_check) FROM pragma_integrity_check)").fetchone()
        rows = db.execute("SELECT count(*), coalesce(sum(length(text)), 0) FROM rows").fetchone()
    if problem != "ok" or rows != (n, total):
        raise AssertionError(f"{path}: {problem}, {n} commits, {total} bytes, rows {rows}")
    return n


class FollowCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.standby = self.path("standby.db")
        self.db = self.open_db()
        make_counter(self.db)
        self.db.execute("CREATE TABLE sums (total INTEGER)")
        self.db.execute("INSERT INTO sums VALUES (0)")
        self.r = self.replicate()
        self.r.wait_ready()
        self.rng = random.Random(7)

    def commits(self, n):
        for _ in range(n):
            size = self.rng.randrange(1, 6000)
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("UPDATE counter SET n = n + 1")
            self.db.execute("INSERT INTO rows (text) VALUES (?)", ("x" * size,))
            self.db.execute("UPDATE sums SET total = total + ?", (size,))
            if self.rng.random() < 0.2:
                self.db.execute("UPDATE rows SET text = replace(text, 'x', 'y') WHERE id % 3 = 0")
            self.db.execute("COMMIT")

    def command(self, *options):
        return [ASOF, "restore", "--follow", "-o", self.standby, "--archive", self.archive,
                *options]

    def once(self, *options, env=None):
        return asof(*self.command("--once", *options)[1:], env=env)

    def must_once(self, *options):
        run = self.once(*options)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        return run.stdout

    def follow(self, *options):
        with open(self.path("follow.log"), "w", encoding="utf-8") as log:
            p = subprocess.Popen(self.command(*options), stdin=subprocess.DEVNULL, stdout=log,
                                 stderr=log)

        def close():
            p.kill()
            p.wait()
        self.addCleanup(close)
        return p

    def log(self):
        with open(self.path("follow.log"), encoding="utf-8") as f:
            return f.read()

    def expected(self):
        self.r.wait_known()
        return self.db.execute("SELECT n FROM counter").fetchone()[0]

    def assert_up_to_date(self):
        self.assertEqual(one_state(self.standby), self.expected())
        exact = self.restore("--latest", out=self.path("exact.db"))
        with open(exact, "rb") as f, open(self.standby, "rb") as g:
            a, b = bytearray(f.read()), bytearray(g.read())
        for p in (a, b):
            p[18:20] = b"\1\1"
            p[24:28] = p[92:96] = b"\0\0\0\0"
        self.assertEqual(a, b)

    def files(self):
        return sorted(n for n in os.listdir(self.dir) if n.startswith("standby"))


class Following(FollowCase):
    def test_readers_see_whole_states(self):
        p = self.follow()
        wait_for("a first copy", lambda: os.path.exists(self.standby))
        seen = []
        until = time.monotonic() + 30
        while len(seen) < 40 or (len(set(seen)) <= 3 and time.monotonic() < until):
            self.commits(5)
            seen.append(one_state(self.standby))
        self.assertEqual(seen, sorted(seen))
        self.assertGreater(len(set(seen)), 3)
        end = self.expected()
        wait_for("it to be up to date", lambda: one_state(self.standby) == end)
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(harness.PATIENCE), 0, self.log())
        self.assert_up_to_date()
        self.assertRegex(self.log(), r"(?m)^txid \d+ of \S+Z, lag \d+\.\d s, wrote ")
        self.assertEqual(self.files(), ["standby.db", "standby.db.asof-follow"])

    def test_tells_of_the_last_update_too(self):
        """However quickly they came; and how far it is behind is not how old the commit is."""
        p = self.follow()
        wait_for("a first copy", lambda: "txid" in self.log())
        for _ in range(5):
            self.commits(1)
            end = self.expected()
            wait_for("it to follow", lambda: one_state(self.standby) == end)  # noqa: B023
        last = harness.asof_json("log", "--archive", self.archive)["commits"][-1]
        wait_for("the last line", lambda: f"txid {last['txid']} of " in self.log())
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(harness.PATIENCE), 0, self.log())
        os.unlink(self.standby)
        os.unlink(self.standby + ".asof-follow")
        of = datetime.datetime.fromisoformat(last["time"].replace("Z", "+00:00")).timestamp()
        wait_for("it to be some time ago", lambda: time.time() - of > 5)
        self.r.wait_known()
        news = json.loads(self.must_once("--json"))
        self.assertEqual(news["txid"], last["txid"])
        self.assertLess(news["lag_ms"], (time.time() - of) * 1000 - 500)

    def test_updates_are_small(self):
        self.db.execute("CREATE TABLE bulk AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT "
                        "i + 1 FROM n WHERE i < 3000) SELECT i, randomblob(2000) FROM n")
        self.commits(1)
        self.r.wait_known()
        self.must_once()
        size = os.path.getsize(self.standby)
        self.commits(3)
        self.r.wait_known()
        news = json.loads(self.must_once("--json"))
        self.assertLess(news["written_bytes"], size / 20)
        self.assertGreater(news["pages"], 0)
        self.assertFalse(news["whole"])
        self.assertGreaterEqual(news["lag_ms"], 0)
        self.assert_up_to_date()

    def test_a_reader_holds_it_up(self):
        self.must_once()
        before = one_state(self.standby)
        reader = sqlite3.connect(self.standby, isolation_level=None)
        self.addCleanup(reader.close)
        reader.execute("BEGIN")
        reader.execute("SELECT n FROM counter").fetchone()
        self.commits(3)
        self.r.wait_known()
        self.assert_fails(self.once(), 1, "being read")
        self.assertEqual(reader.execute("SELECT n FROM counter").fetchone()[0], before)
        p = self.follow()
        time.sleep(0.5)
        reader.execute("COMMIT")
        end = self.expected()
        wait_for("the update", lambda: one_state(self.standby) == end)
        # The connection that was there all the time drops what it cached.
        self.assertEqual(reader.execute("SELECT n FROM counter").fetchone()[0], end)
        self.assertIsNone(p.poll())

    def test_shrinking_and_growing(self):
        self.must_once()
        for i in range(6):
            self.commits(20)
            if i % 2:
                self.db.execute("DELETE FROM rows")
                self.db.execute("UPDATE counter SET n = 0")
                self.db.execute("UPDATE sums SET total = 0")
                self.db.execute("VACUUM")
            self.r.wait_known()
            self.must_once()
            self.assert_up_to_date()

    def test_the_primary_is_restored(self):
        self.commits(5)
        self.r.wait_known()
        txid = self.r.status()["last_txid"]
        self.commits(5)
        self.r.wait_known()
        self.must_once()
        self.db.close()
        run = asof("restore", "--tx", txid, "--force", "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.db = self.open_db()
        self.commits(2)
        wait_for("a child lineage", lambda: (self.r.status() or {}).get("lineage", 0) > 1)
        self.assertEqual(self.expected(), 7)
        self.must_once()
        self.assert_up_to_date()

    def test_what_is_refused(self):
        self.assert_fails(asof("restore", "--follow", "--archive", self.archive), 2, "-o")
        self.assert_fails(asof("restore", "--once", "--latest", "--archive", self.archive), 2,
                          "--follow")
        self.assert_fails(asof("restore", "--follow", "-o", self.db_path, "--archive",
                               self.archive), 1, "live database")
        shutil.copy(self.db_path, self.standby)
        self.assert_fails(self.once(), 1, "no standby", "--force")
        self.must_once("--force")
        self.assert_up_to_date()
        self.follow()
        wait_for("the other one", lambda: self.standby + ".asof-follow.lock" in
                 [self.path(n) for n in os.listdir(self.dir)])
        self.assert_fails(self.once(), 1, "another follower")

    def test_somebody_wrote_to_it(self):
        self.must_once()
        with contextlib.closing(sqlite3.connect(self.standby)) as db:
            db.execute("CREATE TABLE mine (x)")
            db.commit()
        self.commits(1)
        self.r.wait_known()
        self.assert_fails(self.once(), 1, "written to by somebody else", "--force")
        with contextlib.closing(sqlite3.connect(self.standby)) as db:
            db.execute("SELECT * FROM mine")
        self.must_once("--force")
        self.assert_up_to_date()

    def test_a_damaged_note(self):
        self.must_once()
        with open(self.standby + ".asof-follow", "r+b") as f:
            f.seek(30)
            f.write(b"9")
        self.assert_fails(self.once(), 4, "asof-follow", "damaged")
        self.must_once("--force")
        self.assert_up_to_date()


@unittest.skipUnless(os.path.exists(DIE_IO), "no die_io.so beside the program")
class Dying(FollowCase):
    """kill -9 at every call that changes a file, and in the middle of every write."""

    def sweep(self, restore, torn):
        old, new = one_state(restore(True)) if restore(True) else None, self.expected()
        seen, deaths = set(), 0
        for at in range(1, 200):
            restore(False)
            env = {"LD_PRELOAD": DIE_IO, "DIE_AT": str(at)}
            if torn:
                env["DIE_TORN"] = "1"
            run = self.once(env=env)
            if run.returncode != -signal.SIGKILL:
                self.assertEqual(run.returncode, 0, run.stderr)
                break
            deaths += 1
            if os.path.exists(self.standby) and old is not None:
                seen.add(one_state(self.standby))  # by plain SQLite, with nobody's help
            self.must_once()
            self.assertEqual(one_state(self.standby), new)
            self.assertEqual(self.files(), ["standby.db", "standby.db.asof-follow"])
        else:
            self.fail("it never ended")
        self.assert_up_to_date()
        return deaths, seen - {old, new}, {old, new} - seen

    def kept(self):
        kept = {}
        for name in self.files():
            with open(self.path(name), "rb") as f:
                kept[name] = f.read()

        def restore(only_look):
            if only_look:
                return self.standby if kept else None
            for name in self.files():
                os.unlink(self.path(name))
            for name, data in kept.items():
                with open(self.path(name), "wb") as f:
                    f.write(data)
            return None
        return restore

    def test_first_copy(self):
        self.commits(5)
        deaths, strange, _ = self.sweep(self.kept(), False)
        self.assertGreater(deaths, 8)
        self.assertEqual(strange, set())

    def check_update(self, torn):
        self.commits(10)
        self.r.wait_known()
        self.must_once()
        kept = self.kept()
        self.commits(10)
        self.db.execute("UPDATE rows SET text = text || 'z'")
        self.db.execute("UPDATE sums SET total = (SELECT sum(length(text)) FROM rows)")
        deaths, strange, missing = self.sweep(kept, torn)
        self.assertGreater(deaths, 12)
        self.assertEqual((strange, missing), (set(), set()))

    def test_update(self):
        self.check_update(False)

    def test_update_with_torn_writes(self):
        self.check_update(True)

    def test_update_as_a_whole(self):
        """A standby that was not there when its commit went: compared from end to end."""
        self.commits(10)
        self.r.wait_known()
        self.must_once()
        os.unlink(self.standby + ".asof-follow")
        kept = self.kept()
        self.commits(10)
        old, new = one_state(self.standby), self.expected()
        for at in range(1, 200):
            kept(False)
            run = self.once("--force", env={"LD_PRELOAD": DIE_IO, "DIE_AT": str(at)})
            if run.returncode == 0:
                break
            self.assertEqual(run.returncode, -signal.SIGKILL)
            self.assertIn(one_state(self.standby), (old, new))
            self.must_once("--force")
            self.assertEqual(one_state(self.standby), new)
        self.assertGreater(at, 10)

    def test_while_it_runs(self):
        """At any moment of a run that goes on for long."""
        self.must_once()
        for i in range(8):
            p = self.follow()
            end = time.monotonic() + 0.15 + 0.05 * i
            while time.monotonic() < end:
                self.commits(3)
            p.kill()
            p.wait()
            one_state(self.standby)
        self.r.wait_known()
        self.must_once()
        self.assert_up_to_date()


if __name__ == "__main__":
    harness.main()
