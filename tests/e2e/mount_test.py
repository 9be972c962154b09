#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""The mount as users and programs meet it: SQLite clients, file tools, listings, lifecycle."""

import calendar
import contextlib
import ctypes
import errno
import gzip
import json
import mmap
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, commit, counter_of, make_counter, wait_for  # noqa: E402

NAME = "trades.db"
NOBODY = 65534
N_COMMITS = 250


def run(*args, timeout=60, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([str(a) for a in args], timeout=timeout, check=False, text=True,
                          errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def is_mounted(point):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split()[4] == point for line in f)


def mounts_in(folder):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return sum(line.split()[4].startswith(folder) for line in f)


def mount(archive, point, *words):
    os.makedirs(point, exist_ok=True)
    r = asof("mount", archive, point, *(["-o", ",".join(words)] if words else []))
    if r.returncode:
        raise AssertionError(f"asof mount: status {r.returncode}: {r.stderr}")
    return point


def unmount(point):
    r = run("fusermount3", "-u", point)
    if r.returncode:
        raise AssertionError(f"fusermount3 -u: {r.stderr}")


def server_of(point):
    """The process that serves a mount of this test: it has the mount point in its arguments."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = read(f"/proc/{pid}/cmdline").split(b"\0")
            if point.encode() in words and os.path.basename(words[0]) == b"asof":
                return int(pid)
    return None


def make_archive(folder):
    """An application's history of N_COMMITS commits, replicated; (database, archive)."""
    db_path, archive = os.path.join(folder, NAME), os.path.join(folder, "archive")
    db = harness.open_db(db_path)
    make_counter(db)
    replicator = harness.Replicator(db_path, archive)
    try:
        replicator.wait_ready()
        for i in range(N_COMMITS):
            commit(db, n_rows=1 + i % 5)
        replicator.wait_known()
    finally:
        replicator.stop()
        replicator.close()
        db.close()
    return db_path, archive


def commits_of(archive):
    log = harness.asof_json("log", "--archive", archive)
    return log["commits"] if isinstance(log, dict) else log


class Reading(unittest.TestCase):
    """One archive, mounted once; nothing here changes it."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        harness.need_fuse()
        cls.dir = tempfile.mkdtemp(prefix="asof-")
        cls.addClassCleanup(shutil.rmtree, cls.dir, True)
        cls.db, cls.archive = make_archive(cls.dir)
        cls.m = os.path.join(cls.dir, "m")
        cls.addClassCleanup(lambda: run("fusermount3", "-uz", cls.m))
        mount(cls.archive, cls.m)
        cls.commits = commits_of(cls.archive)
        cls.last = cls.commits[-1]["txid"]
        cls.mid = cls.commits[len(cls.commits) // 2]["txid"]

    def setUp(self):
        self.out = tempfile.mkdtemp(dir=self.dir)

    def tx(self, txid=None, raw=False):
        return os.path.join(self.m, ".raw" if raw else "", "tx", NAME, str(txid or self.last))

    def ok(self, *args, **kw):
        r = run(*args, **kw)
        self.assertEqual(r.returncode, 0, f"{args}\n{r.stdout[-2000:]}\n{r.stderr[-2000:]}")
        return r.stdout

    def counter(self, path):
        return int(self.ok("sqlite3", path, "SELECT n FROM counter"))

    # ---- SQLite clients ----

    def test_cli(self):
        path = self.tx(self.mid)
        n = self.counter(path)
        query = "SELECT n FROM counter"
        quoted = "file:" + path
        for args in ((path,), ("-readonly", path), (quoted + "?mode=ro",),
                     (quoted + "?immutable=1",), (quoted + "?nolock=1",),
                     ("-cmd", "PRAGMA mmap_size=1000000000", path),
                     ("-cmd", "PRAGMA locking_mode=exclusive", path),
                     ("-cmd", "PRAGMA query_only=1", path),
                     ("-cmd", "CREATE TEMP TABLE t AS SELECT * FROM rows", path)):
            out = self.ok("sqlite3", *args, query).split()
            self.assertEqual(out[-1], str(n), args)
        self.assertEqual(self.ok("sqlite3", path, "PRAGMA integrity_check").strip(), "ok")
        self.assertEqual(self.ok("sqlite3", path, "PRAGMA journal_mode").strip(), "delete")

    def test_cli_copies(self):
        path, n = self.tx(self.mid), self.counter(self.tx(self.mid))
        copy = os.path.join(self.out, "copy.db")
        self.ok("sqlite3", path, f".backup {copy}")
        self.assertEqual(counter_of(copy), n)
        os.unlink(copy)
        self.ok("sqlite3", path, f"VACUUM INTO '{copy}'")
        self.assertEqual(counter_of(copy), n)
        dump = self.ok("sqlite3", path, ".dump")
        self.assertIn(f"INSERT INTO counter VALUES({n});", dump)
        self.assertTrue(dump.rstrip().endswith("COMMIT;"))

    def test_cli_attach(self):
        out = self.ok("sqlite3", self.tx(self.last),
                      f"ATTACH '{self.tx(self.mid)}' AS old; SELECT count(*) FROM rows WHERE id "
                      "NOT IN (SELECT id FROM old.rows); SELECT count(*) FROM rows; "
                      "SELECT count(*) FROM old.rows")
        new, now, then = map(int, out.split())
        self.assertEqual(new, now - then)
        self.assertGreater(new, 0)

    def test_cli_writes_nothing(self):
        for sql in ("INSERT INTO counter VALUES (1)", "PRAGMA user_version=5", "VACUUM",
                    "CREATE TABLE x (y)"):
            r = run("sqlite3", self.tx(), sql)
            self.assertNotEqual(r.returncode, 0)
            self.assertIn("readonly", r.stderr)
        run("sqlite3", self.tx(), "PRAGMA journal_mode=wal")
        self.assertEqual(self.ok("sqlite3", self.tx(), "PRAGMA journal_mode").strip(), "delete")

    def test_python(self):
        path = self.tx(self.mid)
        n = self.counter(path)
        a, b = sqlite3.connect(path), sqlite3.connect(path)
        with contextlib.closing(a), contextlib.closing(b):
            for db in (a, b, a):
                self.assertEqual(db.execute("SELECT n FROM counter").fetchone(), (n,))
            a.execute("PRAGMA mmap_size = 1000000000")
            self.assertEqual(a.execute("PRAGMA quick_check").fetchone(), ("ok",))
            with self.assertRaisesRegex(sqlite3.OperationalError, "readonly"):
                b.execute("UPDATE counter SET n = 0")

    def test_python_backup_in_steps(self):
        script = ("import sqlite3, sys\n"
                  "a, b = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])\n"
                  "a.backup(b, pages=3)\n")
        copy = os.path.join(self.out, "copy.db")
        self.ok(sys.executable, "-c", script, self.tx(self.mid), copy, timeout=30)
        self.assertEqual(counter_of(copy), self.counter(self.tx(self.mid)))

    def test_node(self):
        """Node's own SQLite where it has one, else the module of Debian."""
        own = ("const {DatabaseSync} = require('node:sqlite');"
               "for (const o of [{}, {readOnly: true}]) {"
               " const db = new DatabaseSync(process.argv[1], o);"
               " console.log(db.prepare('SELECT n FROM counter').get().n); db.close(); }")
        module = ("const {Database, OPEN_READONLY, OPEN_READWRITE} = require('sqlite3');"
                  "for (const mode of [OPEN_READONLY, OPEN_READWRITE]) {"
                  " const db = new Database(process.argv[1], mode);"
                  " db.get('SELECT n FROM counter', (e, row) => console.log(e || row.n)); }")
        for script in (own, module) if shutil.which("node") else ():
            name = script[script.index("require"):script.index(";")]
            if run("node", "-e", name).returncode == 0:
                out = self.ok("node", "-e", script, self.tx(self.mid)).split()
                self.assertEqual(out, [str(self.counter(self.tx(self.mid)))] * 2)
                return
        self.skipTest("no node with SQLite")

    def test_sqldiff(self):
        if not shutil.which("sqldiff"):
            self.skipTest("no sqldiff")
        out = self.ok("sqldiff", "--table", "counter", self.tx(self.mid), self.tx(self.last))
        self.assertIn(f"n={self.counter(self.tx(self.last))}", out)
        self.assertEqual(self.ok("sqldiff", self.tx(self.mid), self.tx(self.mid)), "")

    # ---- what files hold ----

    def test_every_commit(self):
        seen = []
        for row in self.commits:
            with contextlib.closing(sqlite3.connect(self.tx(row["txid"]))) as db:
                self.assertEqual(db.execute("PRAGMA quick_check").fetchone(), ("ok",))
                seen.append(db.execute("SELECT n FROM counter").fetchone()[0])
        self.assertEqual(seen, sorted(set(seen)))
        self.assertEqual(seen[-1], N_COMMITS)

    def test_bytes(self):
        for txid in (self.commits[0]["txid"], self.mid, self.last):
            out = os.path.join(self.out, f"{txid}.db")
            r = asof("restore", "--tx", txid, "-o", out, "--archive", self.archive)
            self.assertEqual(r.returncode, 0, r.stderr)
            exact = bytearray(read(out))
            self.assertEqual(read(self.tx(txid, raw=True)), exact)
            self.assertEqual(bytes(exact[18:20]), b"\2\2")
            exact[18:20] = b"\1\1"
            self.assertEqual(read(self.tx(txid)), exact)
            self.assertEqual(os.stat(self.tx(txid)).st_size, len(exact))
        # The last of all is what the live file became when its WAL was checkpointed.
        self.assertEqual(read(self.tx(raw=True)), read(self.db))

    def test_odd_reads(self):
        whole = read(self.tx())
        with open(self.tx(), "rb", buffering=0) as f:
            for offset, size in ((0, 18), (0, 19), (18, 1), (19, 1), (17, 4), (20, 7),
                                 (4095, 2), (1, 100000), (len(whole) - 5, 100), (len(whole), 9),
                                 (len(whole) + 99999, 9)):
                self.assertEqual(os.pread(f.fileno(), size, offset), whole[offset:offset + size])

    def test_stat(self):
        row = next(r for r in self.commits if r["txid"] == self.mid)
        st = os.stat(self.tx(self.mid))
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(st.st_mtime_ns // 10**9))
        self.assertTrue(row["time"].startswith(text), (row, text))
        self.assertEqual(st.st_mtime_ns, st.st_ctime_ns)
        self.assertEqual((st.st_nlink, st.st_blksize), (1, 65536))
        self.assertEqual(st.st_blocks, (st.st_size + 511) // 512)
        self.assertEqual(st.st_mode & 0o7777, 0o400)
        self.assertEqual(os.stat(self.m).st_mode & 0o7777, 0o500)

    def test_the_kernel_reads_ahead(self):
        """By requests of its own, some at once; where it lets us say how far."""
        dev = os.stat(self.m).st_dev
        path = f"/sys/class/bdi/{os.major(dev)}:{os.minor(dev)}/read_ahead_kb"
        if not os.access(path, os.W_OK):
            self.skipTest(f"{path} is not ours to write")
        with open(path, encoding="ascii") as f:
            self.assertEqual(int(f.read()), 1024)

    # ---- names and numbers ----

    def time_of(self, txid):
        return next(r["time"] for r in self.commits if r["txid"] == txid)

    def test_spellings(self):
        text = self.time_of(self.mid)
        want = os.stat(self.tx(self.mid)).st_ino
        compact = text.replace("-", "").replace(":", "")
        for spelling in (text, text.replace(":", "-"), compact, text.replace("T", " "),
                         text.rstrip("Z")):
            st = os.stat(os.path.join(self.m, "at", spelling, NAME))
            self.assertEqual(st.st_ino, want, spelling)
        date, rest = text.split("T")
        hour, minute, second = rest.rstrip("Z").split(":")
        second, _, fraction = second.partition(".")
        leaf = f"{hour}-{minute}-{second}.{fraction:0<6}Z.txid{self.mid}.db"
        path = os.path.join(self.m, "history", NAME, date, hour, minute, leaf)
        self.assertEqual(os.stat(path).st_ino, want)
        self.assertNotEqual(os.stat(self.tx(self.mid, raw=True)).st_ino, want)
        self.assertEqual(os.stat(os.path.join(self.m, "latest", NAME)).st_ino,
                         os.stat(self.tx()).st_ino)

    def test_page_cache_is_shared(self):
        size = len(read(self.tx(self.mid)))
        path = os.path.join(self.m, "at", self.time_of(self.mid), NAME)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        with open(path, "rb") as f, mmap.mmap(f.fileno(), size, mmap.MAP_PRIVATE,
                                              mmap.PROT_READ | mmap.PROT_WRITE) as view:
            vec = ctypes.create_string_buffer((size + 4095) // 4096)
            start = ctypes.addressof(ctypes.c_char.from_buffer(view))
            self.assertEqual(libc.mincore(start, size, vec), 0)
            self.assertTrue(all(b & 1 for b in vec.raw[:-1]))

    def test_folders_have_their_own_numbers(self):
        text = self.time_of(self.mid)
        folders = ["", "latest", "at", "tx", "tx/" + NAME, "history", "marks", "manual", ".raw",
                   ".raw/latest", ".asof", "at/" + text, "at/" + text.replace(":", "-"),
                   ".raw/at/" + text]
        inodes = [os.stat(os.path.join(self.m, f)).st_ino for f in folders]
        self.assertEqual(len(set(inodes)), len(inodes))
        for folder in folders:
            path = os.path.join(self.m, folder).rstrip("/")
            for other in folders:
                os.stat(os.path.join(self.m, other))
            self.assertEqual(self.ok("/bin/pwd", "-P", cwd=path).strip(), path)

    def test_what_is_not_there(self):
        for path in ("at/garbage", "at/2001-01-01", "at/2999-01-01", "at/-5000w", "tx/none.db",
                     f"tx/{NAME}/0", f"tx/{NAME}/{self.last + 1}", f"tx/{NAME}/01",
                     "history/none.db", f"history/{NAME}/2001-01-01", "latest/none.db",
                     f"latest/{NAME}-wal", f"latest/{NAME}-journal", f"tx/{NAME}/1-shm",
                     "marks/x", "manual/2001-01-01", "x", f"at/{self.time_of(self.mid)}/none.db"):
            for _ in range(2):
                with self.assertRaises(FileNotFoundError):
                    os.stat(os.path.join(self.m, path))

    def test_missing_sidecars_cost_nothing(self):
        path = self.tx() + "-wal"
        self.assertFalse(os.path.exists(path))
        started = time.monotonic()
        for _ in range(20000):
            os.path.exists(path)
        known = time.monotonic() - started
        started = time.monotonic()
        for _ in range(2000):
            os.path.exists(self.tx() + "x")
        asked = (time.monotonic() - started) * 10
        self.assertLess(known, asked * 0.6)

    def test_read_only(self):
        text = os.path.join(self.m, "latest", NAME)
        for do in (lambda: open(text, "r+b"), lambda: open(text + "x", "wb"),
                   lambda: os.unlink(text), lambda: os.mkdir(os.path.join(self.m, "at/x")),
                   lambda: os.rename(text, text + "y"), lambda: os.truncate(text, 0),
                   lambda: os.chmod(text, 0o600), lambda: os.utime(text), lambda: os.link(text, text + "l"),
                   lambda: os.setxattr(text, "user.x", b"y"),
                   lambda: os.symlink("x", os.path.join(self.m, "s"))):
            with self.assertRaises(OSError) as caught:
                do()
            self.assertEqual(caught.exception.errno, errno.EROFS)

    def test_xattrs(self):
        path = self.tx(self.mid)
        got = {n: os.getxattr(path, n).decode() for n in os.listxattr(path)}
        self.assertEqual(got["user.asof.txid"], str(self.mid))
        self.assertEqual(got["user.asof.time"], self.time_of(self.mid))
        self.assertEqual(got["user.asof.journal_mode"], "wal")
        self.assertEqual(got["user.asof.page_size"], "4096")
        self.assertEqual(got["user.asof.provisional"], "0")
        self.assertEqual(got["user.asof.lineage"], "1")
        self.assertGreaterEqual(int(got.get("user.asof.uncertain_us", 1)), 0)
        for name in ("user.none", "security.selinux", "user.asof.none"):
            with self.assertRaises(OSError) as caught:
                os.getxattr(path, name)
            self.assertEqual(caught.exception.errno, errno.ENODATA)
        self.assertEqual(os.listxattr(os.path.join(self.m, "README")), [])
        self.assertEqual(os.getxattr(os.path.join(self.m, "latest", NAME),
                                     "user.asof.provisional"), b"1")

    # ---- listings and tools ----

    def test_listings(self):
        self.assertEqual(sorted(os.listdir(self.m)), sorted(
            [".asof", "README", "at", "automated", "compressed", "history", "latest", "manual",
             "marks", "safety", "tx"]))
        listed = os.listdir(os.path.join(self.m, "tx", NAME))
        self.assertEqual(len(listed), 100)
        self.assertIn(str(self.last), listed)
        self.assertIn(str(self.commits[0]["txid"]), listed)
        times = os.listdir(os.path.join(self.m, "at"))
        self.assertEqual(len(times), 100)
        for name in times:
            self.assertRegex(name, r"\A\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d{3}(\d{3})?)?Z\Z")
            self.assertEqual(os.listdir(os.path.join(self.m, "at", name)), [NAME])
        names = []
        for folder, dirs, files in os.walk(os.path.join(self.m, "history", NAME)):
            if not dirs:
                self.assertLessEqual(len(files), 100)
                names += files
        self.assertGreaterEqual(len(names), 100)
        for name in names:
            self.assertRegex(name, r"\A\d\d-\d\d-\d\d\.\d{6}Z\.txid\d+\.db\Z")

    def test_readdir_agrees_with_stat(self):
        for folder in ("", "latest", "at", "tx", "tx/" + NAME, "history/" + NAME, ".asof"):
            with os.scandir(os.path.join(self.m, folder)) as it:
                for entry in it:
                    st = entry.stat(follow_symlinks=False)
                    self.assertEqual(entry.inode(), st.st_ino, entry.path)
                    self.assertEqual(entry.is_dir(), (st.st_mode & 0o170000) == 0o040000)

    def test_tools(self):
        n = len(self.ok("find", self.m).split("\n"))
        self.assertLess(n, 200000)
        self.ok("ls", "-laR", self.m)
        # Nothing counts as full, and df without -a leaves the mount out.
        self.assertNotIn(self.m, self.ok("df"))
        sizes = self.ok("df", "--output=size,used,avail", self.m).split("\n")[1].split()
        self.assertEqual(sizes, ["0", "0", "0"])
        used = int(self.ok("du", "-s", "--block-size=1", self.tx()).split()[0])
        self.assertGreaterEqual(used, os.stat(self.tx()).st_size)
        self.ok("du", "-s", self.m)

    def test_copies(self):
        moment = os.path.join(self.m, "at", self.time_of(self.mid))
        want = read(self.tx(self.mid))
        self.ok("cp", "-a", moment, os.path.join(self.out, "cp"))
        self.ok("cp", "--sparse=always", self.tx(self.mid), os.path.join(self.out, "sparse"))
        self.ok("tar", "-C", moment, "-cf", os.path.join(self.out, "t.tar"), ".")
        self.ok("tar", "-C", self.out, "-xf", os.path.join(self.out, "t.tar"))
        for path in ("cp/" + NAME, "sparse", NAME):
            self.assertEqual(read(os.path.join(self.out, path)), want)
        self.assertEqual(os.stat(os.path.join(self.out, "cp", NAME)).st_mtime_ns,
                         os.stat(self.tx(self.mid)).st_mtime_ns)
        self.assertEqual(counter_of(os.path.join(self.out, "cp", NAME)),
                         self.counter(self.tx(self.mid)))
        if shutil.which("rsync"):
            target = os.path.join(self.out, "rsync")
            self.ok("rsync", "-a", moment + "/", target)
            self.assertEqual(read(os.path.join(target, NAME)), want)
            again = self.ok("rsync", "-a", "--itemize-changes", moment + "/", target)
            self.assertNotIn(NAME, again)

    def test_status(self):
        with open(os.path.join(self.m, ".asof/status.json"), encoding="utf-8") as f:
            status = json.load(f)
        row, = status["databases"]
        self.assertEqual(row["name"], NAME)
        self.assertEqual(row["last"]["txid"], self.last)
        self.assertFalse(row["writer_alive"])
        self.assertEqual(row["gaps"], [])
        self.assertIn("asof restore", read(os.path.join(self.m, "README")).decode())

    def test_raw_opens_with_immutable(self):
        path = self.tx(self.mid, raw=True)
        out = self.ok("sqlite3", f"file:{path}?immutable=1", "SELECT n FROM counter")
        self.assertEqual(int(out), self.counter(self.tx(self.mid)))

    def test_overlay(self):
        upper, work, top = (os.path.join(self.out, n) for n in ("upper", "work", "top"))
        for folder in (upper, work, top):
            os.mkdir(folder)
        lower = os.path.join(self.m, "at", self.time_of(self.mid).replace(":", "-"))
        r = run("mount", "-t", "overlay", "overlay", "-o",
                f"lowerdir={lower},upperdir={upper},workdir={work}", top)
        if r.returncode:
            self.skipTest("no overlay here: " + r.stderr.strip())
        try:
            path = os.path.join(top, NAME)
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE counter SET n = -1")
                db.commit()
                self.assertEqual(db.execute("SELECT n FROM counter").fetchone(), (-1,))
            self.assertNotEqual(self.counter(self.tx(self.mid)), -1)
        finally:
            run("umount", "-l", top)

    def test_many_at_once(self):
        """Readers of many commits in parallel, each checked; opens share what they can."""
        picks = self.commits[:: max(1, len(self.commits) // 24)]
        script = ("import sqlite3, sys\n"
                  "for p in sys.argv[1:]:\n"
                  "    db = sqlite3.connect(p)\n"
                  "    assert db.execute('PRAGMA quick_check').fetchone() == ('ok',), p\n")
        paths = [self.tx(row["txid"]) for row in picks]
        jobs = [subprocess.Popen([sys.executable, "-c", script, *paths[i:], *paths[:i]])
                for i in range(0, len(paths), 4)]
        for job in jobs:
            self.assertEqual(job.wait(60), 0)

    def test_others_are_shut_out(self):
        if os.geteuid() != 0:
            self.skipTest("not root")
        os.chmod(self.dir, 0o755)
        r = run("ls", self.m, user=NOBODY)
        self.assertNotEqual(r.returncode, 0)
        self.assertIn("Permission denied", r.stderr)


class Lifecycle(harness.Case):
    """Mounting and unmounting, and what moves while mounted."""

    @classmethod
    def setUpClass(cls):
        harness.need_fuse()
        cls.folder = tempfile.mkdtemp(prefix="asof-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        _, cls.made = make_archive(cls.folder)

    def setUp(self):
        super().setUp()
        self.m = self.path("m")
        os.mkdir(self.m)

    def copy_archive(self):
        shutil.copytree(self.made, self.archive)
        return self.archive

    def latest(self):
        return counter_of(os.path.join(self.m, "latest", NAME))

    def test_follows_the_archive(self):
        db = self.open_db()
        os.mkdir(self.archive)
        mount(self.archive, self.m)
        self.assertEqual(os.listdir(os.path.join(self.m, "latest")), [])
        with self.assertRaises(FileNotFoundError):
            os.stat(os.path.join(self.m, "at/now"))
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        wait_for("the database", lambda: os.listdir(os.path.join(self.m, "latest")) == [NAME])
        for n in range(1, 6):
            commit(db)
            wait_for(f"commit {n}", lambda n=n: self.latest() == n, 5)
        before = time.time()
        r.wait_known(before)
        commit(db)
        wait_for("commit 6", lambda: self.latest() == 6, 5)
        self.assertEqual(counter_of(os.path.join(self.m, f"at/@{before:.6f}", NAME)), 5)
        self.assertEqual(counter_of(os.path.join(self.m, "at/now", NAME)), 6)
        time.sleep(1.5)
        self.assertEqual(counter_of(os.path.join(self.m, "at/-1s", NAME)), 6)

    def test_cp_of_latest_under_load(self):
        db = self.open_db()
        make_counter(db)
        r = self.replicate()
        r.wait_ready()
        mount(self.archive, self.m)
        for i in range(150):
            commit(db)
            out = self.path(f"{i % 4}.db")
            r = run("cp", os.path.join(self.m, "latest", NAME), out)
            self.assertEqual((r.returncode, r.stderr), (0, ""))
            if i % 25 == 24:
                counter_of(out)

    def test_a_block_is_inflated_once(self):
        """Read ahead goes no further than a small cache can hold."""
        db = self.open_db()
        make_counter(db)
        with db:
            for _ in range(24):
                db.execute("INSERT INTO rows (text) VALUES (CAST(randomblob(500000) AS TEXT))")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        r = self.replicate()
        r.wait_ready()
        r.stop()
        for words in (["cache_size=1M"], []):
            mount(self.archive, self.m, *words)
            path = os.path.join(self.m, "latest", NAME)
            server = server_of(self.m)

            def bytes_read(server=server):
                with open(f"/proc/{server}/io", encoding="ascii") as f:
                    return int(f.readline().split()[1])

            before = bytes_read()
            whole = read(path)
            times = (bytes_read() - before) / len(whole)
            self.assertGreater(len(whole), 11 << 20)
            self.assertLess(times, 1.3, words)
            unmount(self.m)

    def test_same_numbers_after_a_remount(self):
        def numbers():
            paths = ["README", "latest", "latest/" + NAME, "at", f"tx/{NAME}", f"tx/{NAME}/5",
                     ".raw/latest/" + NAME, "history/" + NAME]
            return [os.stat(os.path.join(self.m, p)).st_ino for p in paths]
        mount(self.made, self.m)
        before = numbers()
        unmount(self.m)
        mount(self.made, self.m)
        self.assertEqual(numbers(), before)

    def test_sigterm(self):
        server = subprocess.Popen([ASOF, "mount", self.made, self.m, "-f"],
                                  stderr=subprocess.PIPE, text=True)
        self.addCleanup(server.stderr.close)
        wait_for("the mount", lambda: is_mounted(self.m))
        self.assertEqual(self.latest(), N_COMMITS)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(5), 0)
        self.assertFalse(is_mounted(self.m))
        self.assertEqual(os.listdir(self.m), [])

    def test_sigterm_with_open_files(self):
        server = subprocess.Popen([ASOF, "mount", self.made, self.m, "-f"],
                                  stderr=subprocess.DEVNULL)
        wait_for("the mount", lambda: is_mounted(self.m))
        path = os.path.join(self.m, "tx", NAME, "7")
        with open(path, "rb") as f:
            f.read(10)
            server.send_signal(signal.SIGTERM)
            wait_for("the unmount", lambda: not is_mounted(self.m))
            self.assertEqual(len(f.read()), os.fstat(f.fileno()).st_size - 10)
            self.assertIsNone(server.poll())
        self.assertEqual(server.wait(5), 0)

    def test_sigterm_with_a_file_that_stays_open(self):
        server = subprocess.Popen([ASOF, "mount", self.made, self.m, "-f"],
                                  stderr=subprocess.DEVNULL)
        wait_for("the mount", lambda: is_mounted(self.m))
        with open(os.path.join(self.m, "tx", NAME, "7"), "rb") as f:
            f.read(10)
            started = time.monotonic()
            server.send_signal(signal.SIGINT)
            self.assertEqual(server.wait(20), 0)
            self.assertGreater(time.monotonic() - started, 8)
        self.assertFalse(is_mounted(self.m))

    def test_unmounted_from_outside(self):
        server = subprocess.Popen([ASOF, "mount", self.made, self.m, "-f"],
                                  stderr=subprocess.DEVNULL)
        wait_for("the mount", lambda: is_mounted(self.m))
        self.assertEqual(asof("umount", self.m).returncode, 0)
        self.assertEqual(server.wait(5), 0)

    def test_umount_of_what_is_in_use(self):
        mount(self.made, self.m)
        with open(os.path.join(self.m, "README"), "rb") as f:
            busy = asof("umount", self.m)
            self.assertEqual(busy.returncode, 1)
            self.assertIn("in use", busy.stderr)
            self.assertTrue(is_mounted(self.m))
            self.assertEqual(asof("umount", self.m, "--lazy").returncode, 0)
            self.assertFalse(is_mounted(self.m))
            self.assertTrue(f.read())

    def test_background_is_ready_and_lets_go(self):
        r = asof("mount", self.made, self.m, timeout=20)
        self.assertEqual((r.returncode, r.stdout, r.stderr), (0, "", ""))
        self.assertEqual(self.latest(), N_COMMITS)
        pid = server_of(self.m)
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        for fd in range(3):
            self.assertEqual(os.readlink(f"/proc/{pid}/fd/{fd}"), "/dev/null")
        unmount(self.m)
        wait_for("the server's end", lambda: server_of(self.m) is None)

    def test_tells_the_service_manager(self):
        path = self.path("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(path)
            s.settimeout(20)
            server = subprocess.Popen([ASOF, "mount", self.made, self.m, "-f"],
                                      env={**os.environ, "NOTIFY_SOCKET": path},
                                      stderr=subprocess.DEVNULL)
            try:
                self.assertEqual(s.recv(100), b"READY=1")
                self.assertEqual(self.latest(), N_COMMITS)
            finally:
                server.terminate()
                self.assertEqual(server.wait(15), 0)

    def stale(self, look):
        """A mount whose server was killed; `look`: the kernel knows its attributes still."""
        server = subprocess.Popen([ASOF, "mount", self.made, self.m, "-f"],
                                  stderr=subprocess.DEVNULL)
        wait_for("the mount", lambda: is_mounted(self.m))
        if look:
            os.stat(self.m)
        server.kill()
        server.wait()

    def test_stale_mount_point_that_is_known(self):
        self.stale(look=True)
        os.stat(self.m)
        for words in (("mount", self.made, self.m), (self.made, self.m, "-o", "rw")):  # mount -a
            r = asof(*words)
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertIn(f"fusermount3 -uz '{self.m}'", r.stderr)
        self.assertEqual(run("fusermount3", "-uz", self.m).returncode, 0)

    def test_stale_mount_point(self):
        self.stale(look=False)
        with self.assertRaises(OSError) as caught:
            os.stat(self.m)
        self.assertEqual(caught.exception.errno, errno.ENOTCONN)
        r = asof("mount", self.made, self.m)
        self.assertEqual(r.returncode, 1)
        self.assertIn(f"fusermount3 -uz '{self.m}'", r.stderr)
        self.assertEqual(run("fusermount3", "-uz", self.m).returncode, 0)
        mount(self.made, self.m)
        self.assertEqual(self.latest(), N_COMMITS)

    def test_not_over_another(self):
        """Nor in it: what lies below would be hidden, or held."""
        mount(self.made, self.m)
        hint = f"asof umount '{self.m}'"
        for point in (self.m, os.path.join(self.m, "latest"), self.m + "/."):
            self.assert_fails(asof("mount", self.made, point), 2, hint)
        self.assertEqual(mounts_in(self.m), 1)
        self.assertEqual(self.latest(), N_COMMITS)
        # Not even another archive; the same one, asked for by mount(8), is there.
        self.copy_archive()
        self.assert_fails(asof(self.archive, self.m, "-o", "ro"), 2, hint)
        self.assertEqual(asof(self.made, self.m, "-o", "ro").returncode, 0)
        self.assertEqual(mounts_in(self.m), 1)
        self.assertEqual(asof("umount", self.m).returncode, 0)
        mount(self.made, self.m)

    def test_refused(self):
        inside = os.path.join(self.copy_archive(), "manual")
        os.makedirs(inside, exist_ok=True)
        link = self.path("link")
        os.symlink(self.archive, link)
        for point in (self.archive, inside, self.dir, link):
            self.assert_fails(asof("mount", self.archive, point), 2, "overlap")
        self.assert_fails(asof("mount", self.archive, self.path("none")), 3, "none")
        self.assert_fails(asof("mount", self.path("none"), self.m), 3, "none")
        self.assert_fails(asof("mount", self.archive, os.path.join(self.dir, "archive")), 2)
        for word in ("alow_other", "uid=x", "tz=Nowhere", "tz=Europe", "tz=zone.tab", "list=some"):
            self.assert_fails(asof("mount", self.archive, self.m, "-o", word), 2, word)
        self.assertFalse(is_mounted(self.m))

    def test_mount_program(self):
        """mount(8), as for a line of fstab."""
        if os.geteuid() != 0 or not shutil.which("mount.fuse3"):
            self.skipTest("needs root and mount.fuse3")
        # mount(8) forgets PATH, so asof has to be where programs are: in a namespace of its own.
        programs = self.path("bin")
        os.mkdir(programs)
        os.symlink(ASOF, os.path.join(programs, "asof"))
        script = ('mount --bind "$1" /usr/local/sbin && mount -t fuse.asof "$2" "$3" -o noauto,'
                  "nofail,_netdev,user,x-systemd.idle-timeout=60,cache_size=16M && "
                  'echo "$2 $3 fuse.asof ro 0 0" >"$1/tab" && mount -a -T "$1/tab" && '
                  'sqlite3 "$3/latest/$4" "SELECT n FROM counter" && grep " $3 " '
                  '/proc/mounts && umount "$3"')
        r = run("unshare", "-m", "sh", "-c", script, "sh", programs, self.made, self.m, NAME)
        if "unshare" in r.stderr:
            self.skipTest("no mount namespaces: " + r.stderr.strip())
        self.assertEqual(r.returncode, 0, r.stderr)
        counter, line = r.stdout.strip().split("\n")
        self.assertEqual(int(counter), N_COMMITS)
        words = line.split()
        self.assertEqual(words[:3], ["asof:" + self.made, self.m, "fuse.asof"])
        for word in ("ro", "nosuid", "nodev", "noexec", "default_permissions"):
            self.assertIn(word, words[3].split(","))
        self.assertNotIn("allow_other", words[3].split(","))
        self.assertNotIn("user", words[3].split(","))

    def test_allow_other(self):
        if os.geteuid() != 0:
            self.skipTest("not root")
        os.chmod(self.dir, 0o755)
        mount(self.made, self.m, "allow_other")
        path = os.path.join(self.m, "latest", NAME)
        self.assertNotEqual(run("cat", path, user=NOBODY).returncode, 0)
        unmount(self.m)
        mount(self.made, self.m, "allow_other", "fmode=0444", "dmode=0555")
        self.assertEqual(run("sqlite3", path, "SELECT n FROM counter", user=NOBODY).stdout.strip(),
                         str(N_COMMITS))
        unmount(self.m)
        mount(self.made, self.m, "allow_other", f"uid={NOBODY}", "gid=0")
        self.assertEqual(os.stat(path).st_uid, NOBODY)
        self.assertEqual(run("cat", path, user=NOBODY).returncode, 0)

    def test_list_all(self):
        mount(self.made, self.m, "list=all")
        names = os.listdir(os.path.join(self.m, "tx", NAME))
        self.assertGreater(len(names), N_COMMITS)
        self.assertEqual(len(set(names)), len(names))
        self.assertEqual(len(os.listdir(os.path.join(self.m, "at"))), len(names))
        n = sum(len(files) for _, _, files in os.walk(os.path.join(self.m, "history")))
        self.assertEqual(n, len(names))

    def test_time_zone(self):
        if not os.path.exists("/usr/share/zoneinfo/Asia/Tokyo"):
            self.skipTest("no zone tables")
        mount(self.made, self.m, "tz=Asia/Tokyo")
        last = harness.asof_json("status", "--archive", self.made)["databases"][0]["last_captured"]
        there = time.strptime(last[:19], "%Y-%m-%dT%H:%M:%S")
        wait_for("the second after it", lambda: time.time() > calendar.timegm(there) + 2)
        later = time.gmtime(calendar.timegm(there) + 9 * 3600 + 1)
        name = time.strftime("%Y-%m-%d %H:%M:%S", later)
        self.assertEqual(counter_of(os.path.join(self.m, "at", name, NAME)), N_COMMITS)

    def damage(self, archive):
        """A byte changed in the middle of the largest object."""
        objects = [os.path.join(f, n) for f, _, names in os.walk(os.path.join(archive, "local"))
                   for n in names if ".wal" in n or n.endswith(".db.gz")]
        path = max(objects, key=os.path.getsize)
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 0x10]))
        return path

    def test_damage(self):
        path = self.damage(self.copy_archive())
        log = self.path("log")
        mount(self.archive, self.m, "log=" + log)
        mount(self.made, self.path("good"))
        self.addCleanup(lambda: run("fusermount3", "-uz", self.path("good")))
        n_bad = n_good = 0
        for row in commits_of(self.made):
            name = str(row["txid"])
            good = read(os.path.join(self.path("good"), "tx", NAME, name))
            for offset in range(0, len(good), 4096):
                try:
                    with open(os.path.join(self.m, "tx", NAME, name), "rb", buffering=0) as f:
                        got = os.pread(f.fileno(), 4096, offset)
                    self.assertEqual(got, good[offset:offset + 4096])
                    n_good += 1
                except OSError as e:
                    self.assertEqual(e.errno, errno.EIO)
                    n_bad += 1
        self.assertGreater(n_good, 0)
        self.assertGreater(n_bad, 0)
        with open(log, encoding="utf-8") as f:
            text = f.read()
        self.assertIn(os.path.basename(path), text)
        self.assertIn("damaged", text)

    def test_backups(self):
        self.copy_archive()
        plain = self.restore("--latest")
        day = os.path.join(self.archive, "manual")
        os.makedirs(day, exist_ok=True)
        with gzip.open(os.path.join(day, "trades_20240115_143000.db.gz"), "wb") as f:
            f.write(read(plain))
        shutil.copy(plain, os.path.join(day, "trades_20240116_143000.db"))
        mount(self.archive, self.m)
        folder = os.path.join(self.m, "manual")
        self.assertEqual(os.listdir(folder), ["2024-01-15", "2024-01-16"])
        for date in ("2024-01-15", "2024-01-16"):
            name = f"trades_{date.replace('-', '')}_143000.db"
            self.assertEqual(os.listdir(os.path.join(folder, date)), [name])
            path = os.path.join(folder, date, name)
            self.assertEqual(os.stat(path).st_size, os.stat(plain).st_size)
            self.assertEqual(run("sqlite3", path, "SELECT n FROM counter").stdout.strip(),
                             str(N_COMMITS))
        # One that comes later is there within a second or so.
        shutil.copy(plain, os.path.join(day, "trades_20240117_000000.db"))
        wait_for("the new backup", lambda: "2024-01-17" in os.listdir(folder), 5)

    def test_two_databases(self):
        db = self.open_db()
        make_counter(db)
        other_path = self.path("users.db")
        other = self.open_db(other_path)
        make_counter(other)
        self.replicate().wait_ready()
        between = time.time()
        time.sleep(0.05)
        r = self.replicate(db=other_path)
        wait_for("both", lambda: len(harness.asof_json("status", "--archive",
                                                       self.archive)["databases"]) == 2
                 and r.alive())
        mount(self.archive, self.m)
        wait_for("both", lambda: os.listdir(os.path.join(self.m, "latest"))
                 == [NAME, "users.db"])
        self.assertEqual(os.listdir(os.path.join(self.m, "at", f"@{between:.6f}")), [NAME])
        commit(other)
        wait_for("a commit of one",
                 lambda: counter_of(os.path.join(self.m, "latest/users.db")) == 1, 5)
        self.assertEqual(self.latest(), 0)


if __name__ == "__main__":
    harness.main()
