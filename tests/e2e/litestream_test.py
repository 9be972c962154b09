#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""asof under the name `litestream`: its commands, its options, its tables.

The words of a command line are read as Litestream 0.3 reads them: held to the program itself
where it can be had ($LITESTREAM, or npm).
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z"
CONFIG = """\
dbs:
  - path: {db}
    replicas:
      - type: file
        path: {archive}/local/trades
"""


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.link = self.path("litestream")
        os.symlink(harness.ASOF, self.link)
        self.config = self.path("litestream.yml")
        self.write_config()

    def write_config(self, text=CONFIG, **names):
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(text.format(**{"db": self.db_path, "archive": self.archive, **names}))

    def run_it(self, *words, env=None, program=None):
        whole_env = {k: v for k, v in os.environ.items()
                     if k not in ("LITESTREAM_CONFIG", "BACKUP_DIR", "DATA_DIR", "ASOF_ARCHIVE")}
        whole_env.update(env or {})
        return subprocess.run([program or self.link, *map(str, words)], env=whole_env, check=False,
                              cwd=self.dir, timeout=60, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ok(self, *words, **kw):
        run = self.run_it(*words, **kw)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout

    def fails(self, *words, texts=(), status=None, **kw):
        run = self.run_it(*words, **kw)
        self.assertNotEqual(run.returncode, 0, run.stdout)
        if status is not None:
            self.assertEqual(run.returncode, status, run.stderr)
        self.assertEqual(run.stdout, "")
        self.assertRegex(run.stderr.splitlines()[-1], r"\Alitestream: \S")
        for text in texts:
            self.assertIn(text, run.stderr)
        return run

    def table(self, command, *words):
        """Rows as dictionaries."""
        header, *rows = self.ok(command, "-config", self.config, *words).splitlines()
        keys = header.split()
        for row in rows:
            self.assertEqual(len(row.split()), len(keys), row)
        return [dict(zip(keys, row.split())) for row in rows]


class Words(Case):
    def test_version_and_help(self):
        self.assertRegex(self.ok("version"), r"\Aasof v\d+\.\d+\.\d+\n\Z")
        commands = ["databases", "generations", "replicate", "restore", "snapshots", "validate",
                    "version", "wal"]
        for words in ([], ["-h"], ["--help"], ["help"]):
            text = self.ok(*words)
            for name in commands:
                self.assertRegex(text, rf"\n  {name} +\w")
        for name in commands:
            self.assertRegex(self.ok(name, "-h"), rf"\Ausage: litestream {name} ")

    def test_one_clear_line(self):
        for words, text in ((["frobnicate"], "unknown command 'frobnicate' (see litestream -h)"),
                            (["-frobnicate"], "unknown option '-frobnicate'"),
                            (["restore", "-frobnicate", "x"], "unknown option '-frobnicate'"),
                            (["restore", "--frobnicate=1", "x"], "unknown option '--frobnicate=1'"),
                            (["databases", "-exec", "x"], "unknown option '-exec'"),
                            (["restore", "-o"], "option '-o' needs an argument"),
                            (["restore"], "database path or replica URL required"),
                            (["restore", "x", "y"], "too many arguments: 'y'"),
                            (["restore", "x", "-o", "y"], "options come first"),
                            (["restore", "-index", "xyz", "x"], "not a hexadecimal number"),
                            (["restore", "-parallelism", "many", "x"], "not a number"),
                            (["restore", "-if-db-not-exists=perhaps", "x"], "neither true nor"),
                            (["restore", "-index", "1", "-timestamp", "now", "x"], "one of"),
                            (["restore", "file:///x"], "needs -o PATH"),
                            (["restore", "-o", "", "x"], "-o is empty"),
                            (["restore", ""], "an argument is empty"),
                            (["replicate", "x.db"], "at least one replica URL for x.db"),
                            (["replicate", "-config", "x", "a", "file:///b"], "-config"),
                            (["databases", "x"], "too many arguments: 'x'")):
            with self.subTest(words):
                run = self.fails(*words, texts=[text], status=2)
                self.assertEqual(run.stderr.count("\n"), 1)

    def test_configuration(self):
        run = self.run_it("databases")
        if not os.path.exists("/etc/litestream.yml") and not os.path.exists("/etc/asof.yml"):
            self.assertEqual(run.returncode, 2)
            self.assertIn("-config", run.stderr)
        for words in (["databases", "-config", self.config], ["-config", self.config, "databases"],
                      ["databases", "--config=" + self.config]):
            self.assertEqual(self.ok(*words).split(),
                             ["path", "replicas", self.db_path, "file"])
        self.assertIn(self.db_path, self.ok("databases",
                                            env={"LITESTREAM_CONFIG": self.config}))
        for words in (["validate", "-config", self.config], ["-config", self.config, "validate"]):
            self.assertIn(f"configuration is valid: {self.config}", self.ok(*words))
        with open(self.config, "a", encoding="ascii") as f:
            f.write("        sync-interval: often\n")
        self.fails("validate", "-config", self.config, texts=["sync-interval", ":6"], status=2)
        self.fails("databases", "-config", self.path("none.yml"), texts=["none.yml"])


class Past(Case):
    """A history of known commits, the database gone on."""

    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        harness.make_counter(self.db)
        self.writer = self.replicate()
        self.writer.wait_ready()
        for _ in range(5):
            harness.commit(self.db)
        self.writer.wait_known()
        self.commits = harness.asof_json("log", "--archive", self.archive)["commits"]

    def restore(self, *words, **kw):
        """The counter of what was restored."""
        self.n_restored = getattr(self, "n_restored", 0) + 1
        out = self.path(f"out-{self.n_restored}.db")
        self.ok("restore", "-config", self.config, "-o", out, *words, self.db_path, **kw)
        return harness.counter_of(out)

    def test_restore(self):
        self.assertEqual(self.restore(), 5)
        self.assertEqual(self.restore("-timestamp", "latest", "-parallelism", "8", "-v"), 5)
        for back, commit in enumerate(reversed(self.commits[-5:])):
            self.assertEqual(self.restore("-timestamp", commit["time"]), 5 - back)
            self.assertEqual(self.restore("-timestamp=" + commit["time"][:-1]), 5 - back)
            self.assertEqual(self.restore("--index", f"{commit['txid']:x}"), 5 - back)
        self.assertEqual(self.restore("-replica", "file"), 5)
        url = self.path("url.db")
        self.ok("restore", "-o", url, f"file://{self.archive}/local/trades")
        self.assertEqual(harness.counter_of(url), 5)
        whole = self.path("whole.db")
        self.ok("restore", "-o", whole, f"file://{self.archive}")
        self.assertEqual(harness.counter_of(whole), 5)

    def test_restore_refuses(self):
        before = os.stat(self.db_path)
        self.fails("restore", "-config", self.config, self.db_path,
                   texts=["output path already exists: " + self.db_path], status=1)
        run = self.run_it("restore", "-if-db-not-exists", "-config", self.config, self.db_path)
        self.assertEqual((run.returncode, run.stdout), (0, ""))
        self.assertIn("database already exists", run.stderr)
        self.assertEqual(os.stat(self.db_path).st_ino, before.st_ino)
        out = self.path("out.db")
        base = ["restore", "-config", self.config, "-o", out]
        self.fails(*base, self.path("other.db"), texts=["not found in the configuration"], status=3)
        self.fails(*base, "-replica", "s3", self.db_path, texts=["'s3'"], status=3)
        self.fails(*base, "-timestamp", "never", self.db_path, texts=["never"], status=2)
        self.fails(*base, "-timestamp", "2000-01-01T00:00:00Z", self.db_path, status=3)
        self.fails(*base, "-generation", "d07dc2754f3c47bd", self.db_path,
                   texts=["no generation 'd07dc2754f3c47bd'"], status=3)
        run = self.run_it(*base, "-if-replica-exists", "-timestamp", "2000-01-01T00:00:00Z",
                          self.db_path)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("no matching backups found", run.stderr)
        self.assertFalse(os.path.exists(out))

    def test_a_container_that_starts(self):
        # restore -if-db-not-exists -if-replica-exists, before there is anything, and after.
        words = ["restore", "-if-db-not-exists", "-if-replica-exists", "-config", self.config]
        self.db.close()
        self.assertEqual(self.writer.stop(), 0)
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self.db_path + end):
                os.unlink(self.db_path + end)
        os.rename(self.archive, self.archive + ".away")
        self.ok(*words, self.db_path)
        self.assertFalse(os.path.exists(self.db_path))
        self.fails("restore", "-config", self.config, self.db_path, status=3)
        os.rename(self.archive + ".away", self.archive)
        self.ok(*words, self.db_path)
        self.assertEqual(harness.counter_of(self.db_path), 5)

    def test_paths_of_a_container(self):
        self.write_config(db="/data/db/trades.db", archive="/data/backups")
        out = self.path("host", "trades.db")
        os.mkdir(os.path.dirname(out))
        self.ok("restore", "-config", self.config, out, env={"BACKUP_DIR": self.archive})
        self.assertEqual(harness.counter_of(out), 5)

    def test_tables(self):
        row, = self.table("generations", self.db_path)
        self.assertEqual(set(row), {"name", "generation", "lag", "start", "end"})
        self.assertEqual((row["name"], row["start"], row["end"]),
                         ("file", self.commits[0]["time"], self.commits[-1]["time"]))
        self.assertRegex(row["generation"], r"\A[0-9a-f]{16}\Z")
        self.assertRegex(row["lag"], r"\A[\d.hms]+\Z")
        self.assertEqual(self.restore("-timestamp", row["end"]), 5)

        snapshots = self.table("snapshots", self.db_path)
        self.assertEqual(set(snapshots[0]), {"replica", "generation", "index", "size", "created"})
        self.assertEqual(snapshots[0]["generation"], row["generation"])
        self.assertRegex(snapshots[0]["created"], rf"\A{TIME}\Z")

        wal = self.table("wal", self.db_path)
        self.assertEqual(set(wal[0]), {"replica", "generation", "index", "offset", "size",
                                       "created"})
        self.assertEqual(int(wal[-1]["index"], 16), self.commits[-1]["txid"])
        for line in wal:
            self.assertGreater(int(line["size"]), 0)
        self.assertEqual(self.restore("-index", wal[-1]["index"]), 5)
        self.assertEqual(self.table("wal", "-generation", row["generation"], self.db_path), wal)
        self.fails("wal", "-config", self.config, "-generation", "ff", "-replica", "x",
                   self.db_path, status=3)
        url = f"file://{self.archive}/local/trades"
        self.assertIn(row["generation"], self.ok("generations", url))

    def test_generations(self):
        # After a restore into the past there are two; both can be asked for.
        self.db.close()
        run = harness.asof("restore", "--archive", self.archive, "--tx",
                           self.commits[-3]["txid"], "-o", self.db_path, "--force")
        self.assertEqual(run.returncode, 0, run.stderr)
        harness.wait_for("a second lineage", lambda: self.writer.status()["lineage"] > 1)
        harness.commit(self.open_db())
        self.writer.wait_known()
        rows = self.table("generations", self.db_path)
        self.assertEqual(len(rows), 2)
        old, new = (r["generation"] for r in rows)
        self.assertLess(old, new)
        self.assertLess(rows[0]["end"], rows[1]["start"])
        self.assertEqual(self.restore(), 4)
        self.assertEqual(self.restore("-generation", old), 5)
        self.assertEqual(self.restore("-generation", new.lstrip("0")), 4)
        commit = self.commits[-2]
        self.assertEqual(self.restore("-generation", old, "-timestamp", commit["time"]), 4)
        self.assertEqual(self.restore("-generation", old, "-index", f"{commit['txid']:x}"), 4)
        self.fails("restore", "-config", self.config, "-o", self.path("x"), "-generation", new,
                   "-index", "1", self.db_path, texts=["no matching backups"], status=3)
        self.assertEqual({r["generation"] for r in
                          self.table("wal", "-generation", old, self.db_path)}, {old})


class Replicate(Case):
    def start(self, *words):
        log = open(self.path("log"), "w+", encoding="utf-8")  # pylint: disable=consider-using-with
        self.addCleanup(log.close)
        process = subprocess.Popen([self.link, "replicate", *words], stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log, cwd=self.dir)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def text(self):
        with open(self.path("log"), encoding="utf-8") as f:
            return f.read()

    def wait_counter(self, process, n):
        out = self.path("probe.db")

        def there():
            self.assertIsNone(process.poll(), self.text())
            run = harness.asof("restore", "--archive", self.archive, "--latest", "-o", out,
                               "--force")
            return run.returncode == 0 and harness.counter_of(out) == n
        harness.wait_for(f"commit {n} in the archive", there)

    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        harness.make_counter(self.db)

    def check(self, *words):
        process = self.start(*words)
        self.wait_counter(process, 0)
        harness.commit(self.db)
        self.wait_counter(process, 1)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0, self.text())

    def test_configuration(self):
        self.check("-config", self.config)

    def test_arguments(self):
        self.check(self.db_path, f"file://{self.archive}")

    def test_path_for_a_url(self):
        self.check(self.db_path, f"{self.archive}/local/trades")
        self.assertEqual(os.listdir(os.path.join(self.archive, "local")), ["trades.db"])

    def check_exec(self, *words):
        """It runs the command, and ends with it."""
        go = self.path("go")
        command = f"while [ ! -e {go} ]; do sleep 0.05; done"
        process = self.start("-exec", command, *words)
        self.wait_counter(process, 0)
        with open(go, "w", encoding="ascii"):
            pass
        self.assertEqual(process.wait(30), 0, self.text())

    def test_exec(self):
        self.check_exec("-config", self.config)

    def test_exec_with_arguments(self):
        self.check_exec(self.db_path, f"file://{self.archive}")


class Installed(Case):
    def test_link(self):
        build = os.environ.get("ASOF_BUILD")
        if not build or not shutil.which("meson"):
            self.skipTest("no build to install")
        run = subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--destdir",
                              self.path("dest")], check=False, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        self.assertEqual(run.returncode, 0, run.stdout)
        prefix = self.path("dest", "usr", "local")
        self.assertRegex(self.ok("version", program=os.path.join(prefix, "bin", "litestream")),
                         r"\Aasof v")
        env = {**os.environ, "ASOF": "", "PATH": "/usr/bin:/bin", "DATA_DIR": self.path("data"),
               "BACKUP_DIR": self.path("backups")}
        share = os.path.join(prefix, "share", "asof")
        for words in (["backup-database.sh", "list"], ["restore-database.sh", "list"],
                      ["setup-litestream.sh", "status"],
                      ["backup_manager.py", "list", "--backup-dir", self.path("backups")]):
            run = subprocess.run([os.path.join(share, words[0]), *words[1:]], env=env, check=False,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
            self.assertEqual(run.returncode, 0, run.stdout)


def find_litestream(folder):
    """Litestream 0.3.13 itself; None without a network."""
    given = os.environ.get("LITESTREAM")
    if given:
        return given
    npm = shutil.which("npm")
    try:
        subprocess.run([npm or "npm", "pack", "--silent", "@flydotio/litestream-linux-x64"],
                       cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        package, = (n for n in os.listdir(folder) if n.endswith(".tgz"))
        subprocess.run(["tar", "xzf", package], cwd=folder, check=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    program = os.path.join(folder, "package", "litestream")
    os.chmod(program, 0o755)
    return program


VERDICTS = (  # what each says of words, and what is meant
    ("unknown option", r"flag provided but not defined|bad flag syntax", r"unknown option"),
    ("no argument", r"flag needs an argument", r"needs an argument"),
    ("invalid value", r"invalid (boolean )?value", r"invalid value"),
    ("too many", r"too many arguments", r"too many arguments"),
    ("too few", r"database path or replica URL required", r"database path or replica URL"),
    ("both", r"cannot specify index & timestamp", r"one of -index"),
    ("time", r"invalid -timestamp", r"restore: -timestamp"),
    ("database", r"database not found in config: (\S+?)\"", r"not found in the configuration: (\S+)"),
    # Last: theirs follows every error about an option.
    ("help", r"\n(The \w+ command|Prints the)", r"\Ausage: litestream"),
)


class AsItself(Case):
    """Random command lines mean the same to both."""

    def verdict(self, text, column):
        for row in VERDICTS:
            m = re.search(row[column], text)
            if m:
                return row[0], (m.group(1) if row[0] == "database" else None)
        return "other: " + text, None

    def test_random_words(self):
        program = find_litestream(self.dir)
        if not program:
            raise unittest.SkipTest("no Litestream here, and npm brings none")
        for name in ("a.yml", "b.yml"):
            with open(self.path(name), "w", encoding="utf-8") as f:
                f.write(CONFIG.format(db=self.path(name + ".db"), archive=self.archive))
        vocabulary = {
            "restore": ["-o", "out.db", "-config a.yml", "-config=b.yml", "--config b.yml", "-config",
                        "-index", "ff", "-index=zz", "-generation", "d07dc2754f3c47bd",
                        "-if-db-not-exists", "-if-replica-exists=true", "-if-db-not-exists=maybe",
                        "--if-replica-exists", "-parallelism", "8", "-parallelism=x", "-replica",
                        "-no-expand-env=false", "none.db", "x", "--", "-", "-frob", "--o", "-o=y",
                        "---o", "-=", "-exec", "-h", "-no-expand-env=0", "-no-expand-env=T"],
            "generations": ["-config a.yml", "-config=b.yml", "-replica", "s3", "-generation",
                            "none.db", "x", "--", "-", "-frob", "-h", "--no-expand-env"],
            "wal": ["-config=a.yml", "-replica=file", "-generation", "d07dc2754f3c47bd", "none.db",
                    "-index", "-h", "--"],
            "snapshots": ["-config=a.yml", "-replica=file", "-generation", "none.db", "-"],
            "databases": ["-config", "none.yml", "-replica", "x", "--", "-h"],
        }
        seed = random.randrange(1 << 30)
        rng, seen = random.Random(seed), {}
        for _ in range(400):
            command = rng.choice(list(vocabulary))
            words = " ".join([command, *rng.choices(vocabulary[command],
                                                    k=rng.randrange(6))]).split()
            if not any(w.startswith(("-config", "--config")) for w in words):
                words.insert(1, "-config=a.yml")
            theirs = self.run_it(*words, program=program)
            ours = self.run_it(*words)
            want = self.verdict(theirs.stdout + theirs.stderr, 1)
            got = self.verdict(ours.stdout + ours.stderr, 2)
            seen[want[0].split(":")[0]] = seen.get(want[0].split(":")[0], 0) + 1
            if want[0].startswith("other"):
                continue
            self.assertEqual(got, want, f"seed {seed}: {words}: {theirs.stderr} {ours.stderr}")
        self.assertGreater(len(set(seen) - {"other"}), 6, seen)


if __name__ == "__main__":
    harness.main()
