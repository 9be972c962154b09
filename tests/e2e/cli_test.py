#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""The command line: help, wrong usage, and what each command prints when all is well."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import asof, asof_json  # noqa: E402

COMMANDS = ["replicate", "mount", "umount", "list", "log", "status", "restore", "check", "backup",
            "stats", "validate", "cleanup"]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"


class Help(harness.Case):
    def test_program(self):
        for words in (["--help"], ["-h"], ["help"]):
            run = asof(*words)
            self.assertEqual((run.returncode, run.stderr), (0, ""))
            for name in COMMANDS:
                self.assertRegex(run.stdout, rf"\n  {name} +\w")

    def test_every_command(self):
        for name in COMMANDS:
            for words in ([name, "--help"], [name, "-h"], ["help", name], [name, "x", "--help"]):
                with self.subTest(words):
                    run = asof(*words)
                    self.assertEqual((run.returncode, run.stderr), (0, ""))
                    self.assertTrue(run.stdout.startswith(f"usage: asof {name} "))
                    self.assertRegex(run.stdout, r"\n\noptions:\n")
                    self.assertRegex(run.stdout, rf"\n\nexample:\n  .*asof {name}")
                    self.assertLessEqual(max(map(len, run.stdout.splitlines())), 100)

    def test_version(self):
        run = asof("--version")
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertRegex(run.stdout, r"\Aasof \d+\.\d+\.\d+\n\Z")

    def test_starts_without_the_network(self):
        """What only some commands want is not loaded at the start of each: it costs milliseconds."""
        run = asof("--version", env={"LD_TRACE_LOADED_OBJECTS": "1"})
        self.assertIn("libsqlite3", run.stdout)
        for name in ("libcurl", "libssl", "libcrypto", "libssh2", "libmicrohttpd", "libgnutls"):
            self.assertNotIn(name, run.stdout)

    def test_a_library_that_is_missing(self):
        """One line that says which, and what to install."""
        for library, package, command in (
                ("libcurl.so.4", "libcurl4", ["list", "--archive", "s3://bucket/x"]),
                ("libssh2.so.1", "libssh2-1", ["list", "--archive", "sftp://host/x"])):
            with self.subTest(library=library):
                with open(self.path(library), "wb"):
                    pass
                run = asof(*command, env={"LD_LIBRARY_PATH": self.dir, "AWS_ACCESS_KEY_ID": "a",
                                          "AWS_SECRET_ACCESS_KEY": "b"})
                self.assertEqual(run.returncode, 1)
                self.assertRegex(run.stderr, rf"\Aasof: [^\n]*load {re.escape(library)}: [^\n]+ "
                                 rf"\(install the package {package}\)\n\Z")

    def test_full_standard_output(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            run = subprocess.run([harness.ASOF, "--help"], stdout=full, stderr=subprocess.PIPE,
                                 text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, r"\Aasof: write standard output: [^\n]+\n\Z")

    def test_closed_descriptors(self):
        run = subprocess.run(["sh", "-c", '"$1" --help >&- 2>&- <&-', "sh", harness.ASOF],
                             check=False)
        self.assertEqual(run.returncode, 1)


# Arguments, and words that the one line of the error holds.  A stands for an archive, D for a
# folder, F for a file that is no archive.
WRONG_USAGE = [
    ([], "no command"),
    ([""], "no command"),
    (["frobnicate"], "frobnicate"),
    (["frobnicate", "--help"], "frobnicate"),
    (["LIST"], "LIST"),
    (["list\nlist"], "list?list"),
    (["--frobnicate"], "--frobnicate"),
    (["-x"], "-x"),
    (["--"], "--"),
    (["--version", "x"], "'x'"),
    (["help", "frobnicate"], "frobnicate"),
    (["help", "list", "log"], "log"),
    (["list"], "ASOF_ARCHIVE"),
    (["list", "--archive"], "--archive"),
    (["list", "--archive", ""], "no archive"),
    (["list", "--archive", "A", "x"], "'x'"),
    (["list", "--archive", "A", "--frobnicate"], "--frobnicate"),
    (["list", "--archive", "A", "--json=yes"], "--json=yes"),
    (["list", "--archive", "A", "-Z"], "-Z"),
    (["log"], "ASOF_ARCHIVE"),
    (["log", "--archive", "A", "a.db", "b.db"], "b.db"),
    (["log", "--archive", "A", ""], "empty"),
    (["log", "--archive", "A", "--limit"], "--limit"),
    (["log", "--archive", "A", "--limit", "0"], "--limit"),
    (["log", "--archive", "A", "--limit", "-1"], "-1"),
    (["log", "--archive", "A", "--limit", "1x"], "1x"),
    (["log", "--archive", "A", "--limit", ""], "--limit"),
    (["log", "--archive", "A", "--limit", "99999999999999999999"], "--limit"),
    (["log", "--archive", "A", "--since", "never"], "never"),
    (["log", "--archive", "A", "--since", ""], "--since"),
    (["log", "--archive", "A", "--since", "2024-13-01"], "2024-13-01"),
    (["log", "--archive", "A", "--until", "2024-01-01T25:00:00Z"], "2024-01-01T25:00:00Z"),
    (["log", "--archive", "A", "--since", "2024-01-02", "--until", "2024-01-01"], "later"),
    (["status"], "ASOF_ARCHIVE"),
    (["status", "--archive", "A", "a.db", "b.db"], "b.db"),
    (["status", "--frobnicate"], "--frobnicate"),
    (["umount"], "DIR"),
    (["umount", "D", "D"], "argument"),
    (["umount", "--frobnicate", "D"], "--frobnicate"),
    (["mount"], "ARCHIVE"),
    (["mount", "A"], "DIR"),
    (["mount", "A", "D", "D"], "argument"),
    (["mount", "A", "D", "-o"], "-o"),
    (["mount", "A", "D", "-o", "frobnicate"], "frobnicate"),
    (["mount", "A", "D", "--frobnicate"], "--frobnicate"),
    (["replicate"], "DB"),
    (["replicate", "F"], "ARCHIVE"),
    (["replicate", "F", "A", "--frobnicate"], "--frobnicate"),
    (["replicate", "F", "A", "--wal-cap", "lots"], "lots"),
    (["replicate", "F", "A", "--wal-cap", "99999999999T"], "99999999999T"),
    (["replicate", "", "A"], "empty"),
    (["restore"], "--latest"),
    (["restore", "--archive", "A"], "--latest"),
    (["restore", "--archive", "A", "--latest", "--tx", "1", "-o", "D/x"], "one of"),
    (["restore", "--archive", "A", "--latest", "--at", "now", "-o", "D/x"], "one of"),
    (["restore", "--archive", "A", "--tx", "one", "-o", "D/x"], "one"),
    (["restore", "--archive", "A", "--tx", "0", "-o", "D/x"], "--tx"),
    (["restore", "--archive", "A", "--at", "whenever", "-o", "D/x"], "whenever"),
    (["restore", "--archive", "A", "--latest", "-o"], "-o"),
    (["restore", "--archive", "A", "--latest", "-o", ""], "-o"),
    (["restore", "--archive", "A", "--latest", "-o", "D/x", "x"], "'x'"),
    (["restore", "--latest", "-o", "D/x"], "ASOF_ARCHIVE"),
]

NOT_FOUND = [
    (["list", "--archive", "D/none"], "none"),
    (["log", "--archive", "D/none"], "none"),
    (["status", "--archive", "D/none"], "none"),
    (["restore", "--archive", "D/none", "--latest", "-o", "D/x"], "none"),
    (["list", "--archive", "A"], "no database"),
    (["log", "--archive", "A"], "no database"),
    (["log", "--archive", "A", "x.db"], "no database"),
    (["status", "--archive", "A"], "no database"),
    (["restore", "--archive", "A", "--latest", "-o", "D/x"], "no database"),
    (["umount", "D/none"], "none"),
    (["umount", "D"], "not mounted"),
    (["umount", "/proc"], "not by asof"),
    (["mount", "D/none", "D"], "none"),
    (["mount", "A", "D/none"], "none"),
    (["D/none", "D", "-o", "ro"], "none"),
    (["replicate", "D/none.db", "A"], "none.db"),
]


class WrongUsage(harness.Case):
    def setUp(self):
        super().setUp()
        os.mkdir(self.archive)
        os.mkdir(self.path("folder"))
        with open(self.path("file"), "w", encoding="ascii") as f:
            f.write("no database\n" * 1000)
        self.stands_for = {"A": self.archive, "D": self.path("folder"), "F": self.path("file")}

    def arguments(self, words):
        return [re.sub(r"^([ADF])(?=/|$)", lambda m: self.stands_for[m[1]], w) for w in words]

    def test_wrong_usage(self):
        for words, text in WRONG_USAGE:
            with self.subTest(words):
                self.assert_fails(asof(*self.arguments(words)), 2, text)
        self.assertEqual(os.listdir(self.archive), [])
        self.assertEqual(os.listdir(self.path("folder")), [])

    def test_not_found(self):
        for words, text in NOT_FOUND:
            with self.subTest(words):
                self.assert_fails(asof(*self.arguments(words)), 3, text)

    def test_empty_archive_as_json(self):
        self.assertEqual(asof_json("list", "--archive", self.archive)["databases"], [])
        self.assertEqual(asof_json("status", "--archive", self.archive)["databases"], [])


class WithHistory(harness.Case):
    """Commands on an archive with one database of 20 commits, the replicator gone."""

    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="asof-")
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        cls.kept_archive = os.path.join(cls.shared, "archive")
        cls.kept_db = os.path.join(cls.shared, "trades.db")
        db = harness.open_db(cls.kept_db)
        cls.addClassCleanup(db.close)
        harness.make_counter(db)
        r = harness.Replicator(cls.kept_db, cls.kept_archive)
        cls.addClassCleanup(r.close)
        r.wait_ready()
        cls.started = time.time()
        for _ in range(20):
            harness.commit(db)
            time.sleep(0.02)
        r.wait_known()
        if r.stop() != 0:
            raise AssertionError(r.log())
        cls.live = db

    def setUp(self):
        super().setUp()
        self.archive = self.kept_archive

    def log(self, *options):
        return asof_json("log", "--archive", self.archive, *options)["commits"]

    def test_list(self):
        run = asof("list", "--archive", self.archive)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        head, row = run.stdout.splitlines()
        self.assertEqual(head.split()[0], "DATABASE")
        self.assertRegex(row, rf"^trades\.db +{TIME} +{TIME} +\d+ +- +\d+ +0 +[\d.]+ \w+$")
        data, = asof_json("list", "--archive", self.archive)["databases"]
        self.assertEqual(data["database"], "trades.db")
        self.assertGreaterEqual(data["last_txid"], data["first_txid"] + 20)
        self.assertGreater(data["archive_bytes"], 0)

    def test_archive_from_environment(self):
        run = asof("list", env={"ASOF_ARCHIVE": self.archive})
        self.assertEqual(run.returncode, 0, run.stderr)
        run = asof("list", "--archive", self.path("none"), env={"ASOF_ARCHIVE": self.archive})
        self.assertEqual(run.returncode, 3)

    def test_log(self):
        run = asof("log", "--archive", self.archive)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        head, *rows = run.stdout.splitlines()
        self.assertEqual(head.split(), ["TXID", "TIME", "PAGES", "BYTES", "DATABASE"])
        self.assertGreaterEqual(len(rows), 21)
        for row in rows:
            self.assertRegex(row, rf"^ *\d+  {TIME} +\d+ +[\d.]+ \w+ +[\d.]+ \w+$")
        commits = self.log("trades.db")
        self.assertEqual(len(commits), len(rows))
        txids = [c["txid"] for c in commits]
        self.assertEqual(txids, list(range(txids[0], txids[0] + len(txids))))
        times = [c["time"] for c in commits]
        self.assertEqual(len(set(times)), len(times))
        self.assertTrue(all(c["pages"] >= 1 and c["bytes"] >= 4120 for c in commits[1:]))

    def test_log_spans(self):
        commits = self.log()
        fifth, tenth = commits[5]["time"], commits[10]["time"]
        self.assertEqual(self.log("--since", fifth, "--until", tenth), commits[5:11])
        self.assertEqual(self.log("--since", fifth, "--until", fifth), commits[5:6])
        self.assertEqual(self.log("--until", tenth, "--limit", "3"), commits[8:11])
        self.assertEqual(self.log("-n", "1"), commits[-1:])
        self.assertEqual(self.log("--limit", "5000"), commits)
        self.assertEqual(self.log("--since", "-1h"), commits)
        self.assertEqual(self.log("--since", "1 hour ago", "--until", "now"), commits)

    def test_log_names(self):
        self.assertEqual(self.log("trades.db"), self.log(self.kept_db))
        run = asof("log", "--archive", self.archive, "ohlc.db")
        self.assert_fails(run, 3, "ohlc.db", "trades.db")

    def test_log_of_nothing(self):
        run = asof("log", "--archive", self.archive, "--until", "2001-01-01")
        self.assert_fails(run, 3, self.log()[0]["time"], self.log()[-1]["time"])

    def test_log_into_a_closed_pipe(self):
        command = '"$1" log --archive "$2" | head -n 1; echo "${PIPESTATUS[0]}"'
        run = subprocess.run(["bash", "-c", command, "bash", harness.ASOF, self.archive],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True)
        self.assertEqual(run.stderr, "")
        self.assertIn("TXID", run.stdout)

    def test_status(self):
        run = asof("status", "--archive", self.archive)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertRegex(run.stdout, r"\n +replicator +not running\n")
        self.assertRegex(run.stdout, rf"\n +last captured +{TIME} +txid \d+ +\((.* ago|now)\)\n")
        self.assertRegex(run.stdout, r"\n +gaps +0\n")
        data, = asof_json("status", "trades.db", "--archive", self.archive)["databases"]
        self.assertIs(data["writer_alive"], False)
        self.assertEqual(data["gaps"], [])
        self.assertEqual(data["source"], self.kept_db)
        self.assertEqual(data["last_txid"], self.log()[-1]["txid"])

    def test_names_with_odd_letters(self):
        """JSON stays whole, tables stay aligned."""
        name = 'Zählung "1" \u65e5\u672c.db'
        db = self.open_db(self.path(name))
        harness.make_counter(db)
        r = self.replicate(db=self.path(name), archive=self.path("odd"))
        r.wait_ready()
        r.stop()
        for words in (["list"], ["status"]):
            data, = asof_json(*words, "--archive", self.path("odd"))["databases"]
            self.assertEqual(data["database"], name)
        self.assertEqual(asof_json("log", "--archive", self.path("odd"))["database"], name)
        head, row = asof("list", "--archive", self.path("odd")).stdout.splitlines()
        self.assertEqual(head.index("RESTORABLE"), row.index("20"))

    def test_restore_every_commit(self):
        for n, c in enumerate(self.log()[-21:]):
            self.assertEqual(harness.counter_of(self.restore("--tx", c["txid"])), n)
            self.assertEqual(harness.counter_of(self.restore("--at", c["time"])), n)
        self.assertEqual(harness.counter_of(self.restore("--latest")), 20)
        self.assertEqual(harness.counter_of(self.restore("--latest", "--db", "trades.db")), 20)

    def test_restore_gives_the_exact_bytes(self):
        copy = self.path("copy.db")
        for suffix in ("", "-wal"):
            shutil.copy(self.kept_db + suffix, copy + suffix)
        db = sqlite3.connect(copy)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        with open(copy, "rb") as a, open(self.restore("--latest"), "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_restore_refuses(self):
        out = self.path("out.db")
        with open(out, "w", encoding="ascii") as f:
            f.write("precious")
        base = ["restore", "--latest", "--archive", self.archive]
        self.assert_fails(asof(*base, "-o", out), 1, "out.db", "--force")
        for suffix in ("-wal", "-shm", "-journal"):
            target = self.path("other.db")
            with open(target + suffix, "w", encoding="ascii") as f:
                f.write("x")
            self.assert_fails(asof(*base, "-o", target), 1, suffix)
            self.assertFalse(os.path.exists(target))
            os.unlink(target + suffix)
        self.assert_fails(asof(*base, "-o", self.path("none", "x.db")), 3, "none")
        self.assert_fails(asof(*base, "-o", self.dir), 1, self.dir)
        with open(out, encoding="ascii") as f:
            self.assertEqual(f.read(), "precious")
        self.assertEqual(asof(*base, "-o", out, "--force").returncode, 0)
        self.assertEqual(harness.counter_of(out), 20)
        self.assertEqual([n for n in os.listdir(self.dir) if "tmp" in n], [])

    def test_restore_keeps_the_mode(self):
        out = self.path("out.db")
        with open(out, "w", encoding="ascii"):
            os.chmod(out, 0o640)
        self.restore("--latest", out=out)
        self.assertEqual(stat.S_IMODE(os.stat(out).st_mode), 0o640)

    def test_moments_that_are_not_there(self):
        first, last = self.log()[0], self.log()[-1]
        base = ["restore", "--archive", self.archive, "-o", self.path("x.db")]
        self.assert_fails(asof(*base, "--at", "2001-01-01"), 3, first["time"])
        self.assert_fails(asof(*base, "--at", "2999-01-01"), 3, "future")
        self.assert_fails(asof(*base, "--tx", last["txid"] + 1), 3, str(last["txid"]))
        self.assert_fails(asof(*base, "--latest", "--db", "none.db"), 3, "trades.db")


if __name__ == "__main__":
    harness.main()
