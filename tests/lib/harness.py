# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: the program, a scratch folder, an application, a replicator.

A test file begins with

    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
    import harness

and ends with harness.main(), or harness.main(at_once=6) where cases mostly wait.  Every case has a
folder of its own (self.dir) that is removed with all that is mounted in it, and ends the processes
that it started.
"""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ASOF = os.environ.get("ASOF") or os.path.join(ROOT, "build", "release", "tools", "asof")
os.environ.setdefault("ASOF_HTTP", "none")  # many daemons at once, one port 8080
PATIENCE = 90.0  # for what is expected to happen; a failing test waits so long, no other


def need_terminal():
    """Skips where there are no pseudo-terminals (a root folder without /dev/pts)."""
    try:
        for fd in os.openpty():
            os.close(fd)
    except OSError as e:
        raise unittest.SkipTest(f"no pseudo-terminals: {e}") from None


def asof(*args, env=None, timeout=180, **kw):
    """Runs the program to its end; texts in .stdout and .stderr, status in .returncode."""
    whole_env = {k: v for k, v in os.environ.items() if k != "ASOF_ARCHIVE"}
    whole_env.update(env or {})
    kw.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([ASOF, *map(str, args)], env=whole_env, timeout=timeout, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)


def asof_json(*args):
    run = asof(*args, "--json")
    if run.returncode:
        raise AssertionError(f"asof {args}: status {run.returncode}: {run.stderr}")
    return json.loads(run.stdout)


def wait_for(what, condition, patience=PATIENCE):
    """The first true value of condition()."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience} s for {what}")
        time.sleep(0.02)


def need_fuse():
    if not os.path.exists("/dev/fuse"):
        raise unittest.SkipTest("no FUSE here: /dev/fuse is missing")
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        raise unittest.SkipTest("no FUSE here: fusermount3 is missing")


def open_db(path, **pragmas):
    """A connection of an application: WAL, no implicit transactions."""
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    for name, value in {"page_size": 4096, "journal_mode": "WAL", **pragmas}.items():
        db.execute(f"PRAGMA {name} = {value}")
    return db


def make_counter(db):
    """A table whose only row is the number of commits since; see commit()."""
    db.execute("CREATE TABLE counter (n INTEGER)")
    db.execute("INSERT INTO counter VALUES (0)")
    db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")


def commit(db, n_rows=1):
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE counter SET n = n + 1")
    for _ in range(n_rows):
        db.execute("INSERT INTO rows (text) VALUES (hex(randomblob(40)))")
    db.execute("COMMIT")


def counter_of(path):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        problem, = db.execute("PRAGMA integrity_check").fetchone()
        if problem != "ok":
            raise AssertionError(f"{path}: {problem}")
        return db.execute("SELECT n FROM counter").fetchone()[0]


class Replicator:
    """A running `asof replicate`; its output is in .log()."""

    def __init__(self, db, archive, *options, prefix=()):
        self.archive = archive
        fd, self.log_path = tempfile.mkstemp(prefix="replicate-", suffix=".log")
        with os.fdopen(fd, "w") as log:
            self.process = subprocess.Popen(
                [*prefix, ASOF, "replicate", db, archive, *options], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def alive(self):
        return self.process.poll() is None

    def status(self):
        """The only database of the archive, or None while there is none."""
        run = asof("status", "--json", "--archive", self.archive)
        rows = json.loads(run.stdout)["databases"] if run.returncode == 0 else []
        return rows[0] if rows and rows[0]["last_txid"] else None

    def wait_ready(self):
        def ready():
            if not self.alive():
                raise AssertionError("the replicator ended: " + self.log())
            status = self.status()
            return status if status and status["writer_alive"] else None
        return wait_for("a first snapshot", ready)

    def wait_known(self, moment=None):
        """Until everything committed before `moment` (now) is captured."""
        moment = moment or time.time()
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        text += f".{int(moment % 1 * 1e6):06}Z"
        return wait_for("capture", lambda: (self.status() or {}).get("known_until", "") > text)

    def stop(self, sig=signal.SIGTERM):
        """Its exit status."""
        if self.alive():
            self.process.send_signal(sig)
        return self.process.wait(PATIENCE)

    def close(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        os.unlink(self.log_path)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="asof-")
        self.addCleanup(self.remove_dir)
        self.archive = os.path.join(self.dir, "archive")
        self.db_path = os.path.join(self.dir, "trades.db")
        self.stop = threading.Event()  # ends what is in the background
        self.failures = []  # of that

    def in_background(self, work):
        def loop():
            while not self.stop.is_set():
                try:
                    work()
                except Exception as e:  # told by the test itself
                    self.failures.append(f"{work.__name__}: {e!r}")
                    return
        thread = threading.Thread(target=loop)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.stop.set)

    def remove_dir(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            points = [line.split()[4] for line in f]
        for point in reversed([p for p in points if p.startswith(self.dir + "/")]):
            asof_umount(point)
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def open_db(self, path=None, **pragmas):
        db = open_db(path or self.db_path, **pragmas)
        self.addCleanup(db.close)
        return db

    def replicate(self, *options, db=None, archive=None, prefix=()):
        r = Replicator(db or self.db_path, archive or self.archive, *options, prefix=prefix)
        self.addCleanup(r.close)
        return r

    def restore(self, *which, out=None, archive=None):
        out = out or self.path("restored.db")
        run = asof("restore", *which, "-o", out, "--force", "--archive", archive or self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        return out

    def assert_fails(self, run, status, *texts):
        """One clear line on standard error, nothing on standard output, that exit status."""
        self.assertEqual(run.returncode, status, f"stdout: {run.stdout}\nstderr: {run.stderr}")
        self.assertRegex(run.stderr, r"\Aasof: [^\n]+\n\Z")
        self.assertLess(len(run.stderr), 500)
        self.assertEqual(run.stdout, "")
        for text in texts:
            self.assertIn(text, run.stderr)


def asof_umount(point):
    command = ["umount", "-l", point] if os.geteuid() == 0 else ["fusermount3", "-uz", point]
    subprocess.run(command, check=False)


def case_ids(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from case_ids(test)
        else:
            yield test.id()


def run_case(name):
    """One case in a process of its own; its output without the summary, how it ended, seconds."""
    began = time.monotonic()
    run = subprocess.run([sys.executable, sys.argv[0], name.removeprefix("__main__.")],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    text, good = run.stdout, run.returncode == 0
    return (text.split("\n" + 70 * "-" + "\nRan ")[0] if good else text), good, \
        time.monotonic() - began


def main(at_once=1):
    """at_once: so many cases at a time, each in a process of its own, for files whose cases mostly
    wait.  Names of cases on the command line are run one after the other."""
    if at_once == 1 or [a for a in sys.argv[1:] if a != "-v"]:
        unittest.main(verbosity=2)
    names = list(case_ids(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])))
    failed = []
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        under_way = {pool.submit(run_case, name): name for name in names}
        for done in concurrent.futures.as_completed(under_way):
            text, good, seconds = done.result()
            print(f"{text.rstrip()}\n    ({seconds:.1f} s)", flush=True)
            if not good:
                failed.append(under_way[done])
    print(f"\nRan {len(names)} tests, failed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)
