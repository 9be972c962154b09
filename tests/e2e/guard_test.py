#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=200 asan
"""asof guard: what a command changed, and the line that takes it back."""

import contextlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, counter_of, make_counter, wait_for  # noqa: E402

CHANGE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute("BEGIN")
db.execute("DELETE FROM rows WHERE id <= 3")
db.execute("UPDATE rows SET text = 'changed' WHERE id IN (5, 6)")
db.executemany("INSERT INTO rows (text) VALUES (?)", [("new",)] * 4)
db.execute("UPDATE counter SET n = n + 1")
db.execute("CREATE TABLE fresh (x)")
db.execute("INSERT INTO fresh VALUES (1)")
db.execute("DROP TABLE gone")
db.execute("CREATE INDEX by_text ON rows (text)")
db.execute("DELETE FROM pairs WHERE a = 1")
db.execute("UPDATE pairs SET c = 9 WHERE a = 2")
db.execute("COMMIT")
"""

# (type, name): added, removed, changed, schema
EXPECTED = {
    ("table", "rows"): (4, 3, 2, "same"),
    ("table", "counter"): (0, 0, 1, "same"),
    ("table", "fresh"): (1, 0, 0, "created"),
    ("table", "gone"): (0, 2, 0, "dropped"),
    ("table", "pairs"): (0, 1, 1, "same"),
    ("index", "by_text"): (0, 0, 0, "created"),
}


class Guard(harness.Case):
    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        make_counter(self.db)
        self.db.executemany("INSERT INTO rows (text) VALUES (?)", [(str(i),) for i in range(10)])
        self.db.execute("CREATE TABLE gone (x)")
        self.db.execute("INSERT INTO gone VALUES (1), (2)")
        self.db.execute("CREATE TABLE pairs (a, b, c, PRIMARY KEY (a, b)) WITHOUT ROWID")
        self.db.execute("INSERT INTO pairs VALUES (1, 1, 1), (2, 1, 1), (3, 1, 1)")
        os.mkdir(self.archive)

    def guard(self, *command, options=()):
        return asof("guard", "--archive", self.archive, *options, "--", *command)

    def change(self):
        return [sys.executable, "-c", CHANGE, self.db_path]

    def report(self, run):
        return json.loads(run.stderr.splitlines()[-1])

    def assert_changes(self, row):
        got = {(c["type"], c["name"]): (c["added"], c["removed"], c["changed"], c["schema"])
               for c in row["changes"]}
        self.assertEqual(got, EXPECTED)

    def take_back(self, line):
        self.db.close()
        words = shlex.split(line)
        self.assertEqual(words[0], "asof")
        run = asof(*words[1:], env={"ASOF_ARCHIVE": self.archive})
        self.assertEqual(run.returncode, 0, run.stderr)
        with contextlib.closing(sqlite3.connect(self.db_path)) as db:
            self.assertEqual(db.execute("SELECT count(*), max(id) FROM rows").fetchone(), (10, 10))
            self.assertEqual(db.execute("SELECT count(*) FROM gone").fetchone(), (2,))

    def test_with_a_replicator(self):
        r = self.replicate()
        r.wait_ready()
        run = self.guard(*self.change(), options=["--json"])
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        row, = self.report(run)["databases"]
        self.assertIsNone(row["backup"])
        self.assertGreater(row["txid"], 0)
        self.assert_changes(row)
        self.take_back(row["restore"])
        # The restore is a child lineage; what the command did is still there to be read.
        with contextlib.closing(self.open_db()) as db:
            db.execute("UPDATE counter SET n = 77")
            wait_for("a child lineage", lambda: (r.status() or {}).get("lineage", 0) > 1)
            r.wait_known()
        self.assertEqual(counter_of(self.restore("--latest")), 77)
        self.assertEqual(counter_of(self.restore("--tx", row["txid"] + 1)), 1)

    def test_without_a_replicator(self):
        run = self.guard(*self.change(), options=["--json", "--db-path", self.db_path])
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        row, = self.report(run)["databases"]
        self.assertIsNone(row["txid"])
        self.assertRegex(row["backup"], r"/safety/trades_guard_\d{8}_\d{6}\.db\.gz\Z")
        self.assert_changes(row)
        self.take_back(row["restore"])

    def test_text(self):
        run = self.guard(*self.change(), options=["--db-path", self.db_path])
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        self.assertRegex(run.stderr, r"(?m)^  rows +4 +3 +2  -$")
        self.assertRegex(run.stderr, r"(?m)^to take it back: asof restore --from .* --force$")
        run = self.guard("true", options=["--db-path", self.db_path])
        self.assertEqual(run.returncode, 0)
        self.assertIn("trades.db: nothing changed\n", run.stderr)
        self.assertNotIn("take it back", run.stderr)

    def test_the_status_is_the_commands(self):
        options = ["--db-path", self.db_path]
        for status in (1, 3, 42):
            run = self.guard("sh", "-c", f"echo out; exit {status}", options=options)
            self.assertEqual((run.returncode, run.stdout), (status, "out\n"))
        run = self.guard("sh", "-c", "kill -9 $$", options=options)
        self.assertEqual(run.returncode, 128 + 9)
        run = self.guard("no-such-program", options=options)
        self.assertEqual(run.returncode, 127)
        self.assertIn("no-such-program", run.stderr)

    def test_standard_input_is_the_commands(self):
        run = subprocess.run([ASOF, "guard", "--archive", self.archive, "--db-path", self.db_path,
                              "--", "cat"], input="through\n", text=True, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual((run.returncode, run.stdout), (0, "through\n"))

    def test_a_signal_is_passed_on(self):
        p = subprocess.Popen([ASOF, "guard", "--archive", self.archive, "--db-path", self.db_path,
                              "--", "sh", "-c",
                              "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(p.stdout.readline(), "ready\n")
        p.send_signal(signal.SIGTERM)
        _, stderr = p.communicate(timeout=30)
        self.assertEqual(p.returncode, 7)
        self.assertIn("nothing changed", stderr)

    def test_nothing_runs_without_a_safety_point(self):
        marker = self.path("ran")
        run = self.guard("touch", marker, options=["--db-path", self.path("none.db")])
        self.assert_fails(run, 3, "none.db")
        run = self.guard("touch", marker)
        self.assert_fails(run, 3, "no database in archive")
        r = self.replicate()
        r.wait_ready()
        self.assertEqual(r.stop(), 0)
        self.db.close()
        os.rename(self.db_path, self.path("elsewhere.db"))
        run = self.guard("touch", marker)
        self.assert_fails(run, 3, "no replicator runs")
        self.assertFalse(os.path.exists(marker))
        self.assert_fails(asof("guard", "--archive", self.archive), 2, "no command")


if __name__ == "__main__":
    harness.main()
