#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""asof restore from files: backups of every make, the safety backup, questions, --delta, dying."""

import contextlib
import gzip
import json
import os
import pty
import select
import shutil
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from harness import ASOF, asof, asof_json, commit, make_counter, wait_for  # noqa: E402

DIE_IO = os.path.join(os.path.dirname(ASOF), "..", "tests", "soak", "die_io.so")
SIDES = ("-wal", "-shm", "-journal")


def content(path):
    with open(path, "rb") as f:
        return f.read()


def counter_of(path):
    """As an application opens it, who may write: then nothing is left beside it, and what a
    transaction that died has changed is put back."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as db:
        problem, = db.execute("PRAGMA integrity_check").fetchone()
        if problem != "ok":
            raise AssertionError(f"{path}: {problem}")
        return db.execute("SELECT n FROM counter").fetchone()[0]


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return path


class BackupCase(harness.Case):
    """A database whose counter says 5 in a backup, and 10 now."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.archive)
        self.db = self.open_db()
        make_counter(self.db)
        for _ in range(5):
            commit(self.db, 20)
        self.backup = asof_json("backup", "--archive", self.archive, "--db-path",
                                self.db_path)["backup_path"]
        for _ in range(5):
            commit(self.db)

    def plain(self):
        """The state of the backup as a plain file."""
        return gzip.decompress(content(self.backup))

    def close(self):
        """As an application does that ends in order: nothing is left beside the file."""
        self.db.close()
        for side in SIDES:
            self.assertFalse(os.path.exists(self.db_path + side))

    def crash(self):
        """The files as they lie there while the application runs; it never closes them."""
        files = {s: content(self.db_path + s) for s in ("", "-wal")}
        self.db.close()
        for side, data in files.items():
            put(self.db_path + side, data)

    def run_restore(self, *args, env=None, **kw):
        return asof("restore", "--archive", self.archive, *args, env=env, **kw)

    def must(self, *args):
        run = self.run_restore(*args, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def leftovers(self):
        return [n for n in os.listdir(self.dir) if "asof-restore" in n]


class Sources(BackupCase):
    def check(self, path, **expected):
        out = self.path("out.db")
        data = self.must("--from", path, "-o", out)
        self.assertEqual(content(out), self.plain())
        self.assertEqual(counter_of(out), 5)
        self.assertTrue(data["validated"])
        self.assertIsNone(data["safety_backup"])
        for key, value in expected.items():
            self.assertEqual(data[key], value)
        os.unlink(out)

    def test_ours(self):
        self.check(self.backup)
        self.check(os.path.basename(self.backup))  # by its name in the archive
        os.symlink(self.backup, self.path("link.gz"))
        self.check(self.path("link.gz"))

    def test_plain(self):
        self.check(put(self.path("x.db"), self.plain()))
        self.check(put(self.path("whatever"), self.plain()))  # by content, not by name

    def test_gzip_of_others(self):
        path = put(self.path("x.db"), self.plain())
        subprocess.run(["gzip", "-k", "-9", path], check=True)
        self.check(path + ".gz")
        with open(path + ".gz", "wb") as f:  # three members, an empty one among them, zeros behind
            f.write(gzip.compress(self.plain()[:5000]) + gzip.compress(b""))
            f.write(gzip.compress(self.plain()[5000:]) + bytes(512))
        self.check(path + ".gz")

    def test_a_pair(self):
        """A database with its -wal, where nobody has it open."""
        self.crash()
        for side in ("", "-wal"):
            shutil.copy(self.db_path + side, self.path("pair.db") + side)
        out = self.path("out.db")
        self.must("--from", self.path("pair.db"), "-o", out)
        self.assertEqual(counter_of(out), 10)
        self.assertFalse(os.path.exists(out + "-wal"))

    def test_gpg(self):
        if not shutil.which("gpg"):
            raise unittest.SkipTest("no gpg here")
        home = self.path("gnupg")
        os.mkdir(home, 0o700)
        env = {**os.environ, "GNUPGHOME": home}
        self.addCleanup(subprocess.run, ["gpgconf", "--kill", "all"], env=env, check=False,
                        stderr=subprocess.DEVNULL)
        run = subprocess.run(["gpg", "--batch", "--passphrase", "", "--quick-gen-key", "me@here"],
                             env=env, check=False, stderr=subprocess.PIPE)
        if run.returncode:
            raise unittest.SkipTest(f"gpg makes no key here: {run.stderr}")
        for name, data in (("a.db.gz", content(self.backup)), ("b.db.gz", gzip.compress(
                self.plain())), ("c.db", self.plain())):
            path = put(self.path(name), data)
            subprocess.run(["gpg", "--batch", "-q", "--trust-model", "always", "-r", "me@here",
                            "-e", path], env=env, check=True)
            out = self.path("out.db")
            run = self.run_restore("--from", path + ".gpg", "-o", out, "--force", env=env)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(content(out), self.plain())
        whole = content(path + ".gpg")
        put(path + ".gpg", whole[:-200] + bytes(200))
        run = self.run_restore("--from", path + ".gpg", "-o", self.path("x.db"), env=env)
        self.assert_fails(run, 4, "c.db.gpg")
        run = self.run_restore("--from", path + ".gpg", "-o", self.path("x.db"),
                               env={"GNUPGHOME": self.path("none")})
        self.assert_fails(run, 4, "c.db.gpg")
        self.assertFalse(os.path.exists(self.path("x.db")))

    def test_without_an_archive(self):
        self.close()
        run = asof("restore", "--from", self.backup, "-o", self.db_path, "--force", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        data = json.loads(run.stdout)
        self.assertEqual(counter_of(self.db_path), 5)
        self.assertEqual(counter_of(data["set_aside"]), 10)  # that is the safety copy, then


class Hostile(BackupCase):
    def refuse(self, name, data, status, *texts):
        path = put(self.path(name), data)
        out = self.path("out.db")
        for old in (None, b"precious"):
            if old:
                put(out, old)
            run = self.run_restore("--from", path, "-o", out, "--force", "--no-safety")
            self.assert_fails(run, status, *texts)
            if old:
                self.assertEqual(content(out), old)
                os.unlink(out)
            self.assertFalse(os.path.exists(out))
        self.assertEqual(self.leftovers(), [])

    def test_files(self):
        plain, ours = self.plain(), content(self.backup)
        others = gzip.compress(plain)
        self.refuse("a.db.gz", b"", 4, "a.db.gz", "empty")
        self.refuse("a.db", b"", 4, "empty")
        self.refuse("a.db.gz", b"no gzip at all", 4, "neither")
        self.refuse("a.db.gz", gzip.compress(b""), 4, "no SQLite database")
        self.refuse("a.db.gz", gzip.compress(b"text " * 999), 4, "no SQLite database")
        self.refuse("a.db.gz", others[:-1], 4, "ends within")
        self.refuse("a.db.gz", others[:len(others) // 2], 4)
        self.refuse("a.db.gz", others + b"garbage", 4)
        self.refuse("a.db.gz", gzip.compress(plain[:-4096]), 4, "not whole")
        self.refuse("a.db.gz", gzip.compress(plain[:-100]), 4, "not whole")
        self.refuse("a.db", plain[:-4096], 4, "not whole")
        self.refuse("a.db", plain[:50], 4)
        self.refuse("a.db.gz", ours[:-1], 4, "a.db.gz")
        self.refuse("a.db.gz", ours[:len(ours) // 2], 4)
        self.refuse("a.db.gz", ours + b"garbage", 4)
        for at in range(30, len(ours), len(ours) // 12):
            self.refuse("a.db.gz", ours[:at] + bytes([ours[at] ^ 8]) + ours[at + 1:], 4)
        self.refuse("a.db.gpg", b"no message", 4 if shutil.which("gpg") else 3, "gpg")

    def test_damage_that_gzip_does_not_see(self):
        plain = bytearray(self.plain())
        plain[4096:4196] = bytes(100)  # the first page of a table
        self.refuse("a.db.gz", gzip.compress(bytes(plain)), 4, "integrity_check", "--no-validate")
        out = self.path("out.db")
        self.must("--from", self.path("a.db.gz"), "-o", out, "--no-validate")
        self.assertEqual(content(out), bytes(plain))

    def test_places(self):
        out = self.path("out.db")
        self.assert_fails(self.run_restore("--from", self.path("none.db.gz"), "-o", out), 3,
                          "none.db.gz")
        self.assert_fails(self.run_restore("--from", self.dir, "-o", out), 1, "no regular file")
        os.mkfifo(self.path("fifo"))
        self.assert_fails(self.run_restore("--from", self.path("fifo"), "-o", out), 1, "regular")
        self.assert_fails(self.run_restore("--from", self.backup, "-o", self.dir), 1, "folder")
        self.assert_fails(self.run_restore("--from", self.backup, "-o", self.dir + "/"), 1,
                          "folder")
        self.assert_fails(self.run_restore("--from", self.backup, "-o", self.path("no", "x.db")),
                          3, "no")
        self.assert_fails(self.run_restore("--from", self.backup, "-o",
                                           os.path.join(self.archive, "manual", "x.db")), 1,
                          "inside the archive")
        os.symlink(self.path("nowhere", "x"), self.path("dangling"))
        self.assert_fails(self.run_restore("--from", self.backup, "-o", self.path("dangling")), 1,
                          "leads nowhere")
        self.close()
        os.symlink("trades.db", self.path("link.db"))
        self.must("--from", self.backup, "-o", self.path("link.db"), "--force")
        self.assertTrue(os.path.islink(self.path("link.db")))
        self.assertEqual(counter_of(self.db_path), 5)

    def test_a_live_database_is_no_source(self):
        self.db.close()
        self.must("--from", self.db_path, "-o", self.path("out.db"))
        reader = subprocess.Popen([sys.executable, "-c", "import sqlite3, sys\n"
                                   "db = sqlite3.connect(sys.argv[1])\n"
                                   "db.execute('SELECT * FROM rows').fetchone()\n"
                                   "print('ready', flush=True)\nsys.stdin.read()", self.db_path],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(reader.communicate)
        self.assertEqual(reader.stdout.readline(), "ready\n")
        run = self.run_restore("--from", self.db_path, "-o", self.path("out2.db"))
        self.assert_fails(run, 1, "is open in process", "asof backup")

    def test_other_filesystems(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("mounting takes root")
        small = self.path("small")
        os.mkdir(small)
        run = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small],
                             stderr=subprocess.PIPE, text=True, check=False)
        if run.returncode:
            raise unittest.SkipTest("no small disk here: " + run.stderr.strip())
        out = os.path.join(small, "x.db")
        big = self.path("big.db")
        with contextlib.closing(sqlite3.connect(big)) as db:
            db.execute("CREATE TABLE t AS SELECT randomblob(300000)")
            db.commit()
        for path in (big, put(self.path("big.db.gz"), gzip.compress(content(big)))):
            self.assert_fails(self.run_restore("--from", path, "-o", out), 1, "No space left")
            self.assertEqual(os.listdir(small), [])
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        self.must("--from", self.backup, "-o", out)
        self.assertEqual(counter_of(out), 5)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        run = self.run_restore("--from", self.backup, "-o", out, "--force", "--no-safety")
        self.assert_fails(run, 1, "Read-only")
        self.assertEqual(content(out), self.plain())


class Safety(BackupCase):
    def test_what_it_holds(self):
        """The present state, its -wal included."""
        self.crash()
        data = self.must("--from", self.backup, "-o", self.db_path, "--force")
        self.assertRegex(data["safety_backup"], r"/safety/trades_pre_restore_\d{8}_\d{6}\.db\.gz")
        self.assertEqual(counter_of(self.db_path), 5)
        out = self.path("out.db")
        self.must("--from", data["safety_backup"], "-o", out)
        self.assertEqual(counter_of(out), 10)
        self.assertEqual(counter_of(data["set_aside"]), 10)
        # And back, as the undo says, from either.
        self.must("--from", data["set_aside"], "-o", self.db_path, "--force")
        self.assertEqual(counter_of(self.db_path), 10)

    def test_of_a_damaged_database(self):
        self.close()
        damaged = bytearray(content(self.db_path))
        damaged[4096:4296] = os.urandom(200)
        put(self.db_path, damaged)
        data = self.must("--from", self.backup, "-o", self.db_path, "--force")
        self.assertEqual(counter_of(self.db_path), 5)
        self.assertTrue(data["safety_warning"])
        self.assertEqual(gzip.decompress(content(data["safety_backup"])), bytes(damaged))
        run = self.run_restore("--from", self.backup, "-o", self.db_path, "--force")
        self.assertIn("\n  safety ", run.stdout)
        out = self.path("raw.db")
        self.assert_fails(self.run_restore("--from", data["safety_backup"], "-o", out), 4)
        self.must("--from", data["safety_backup"], "-o", out, "--no-validate")
        self.assertEqual(content(out), bytes(damaged))

    def test_of_no_database_at_all(self):
        self.close()
        put(self.db_path, b"no database " * 500)
        data = self.must("--from", self.backup, "-o", self.db_path, "--force")
        self.assertEqual(gzip.decompress(content(data["safety_backup"])), b"no database " * 500)

    def test_none_is_wanted(self):
        self.close()
        data = self.must("--from", self.backup, "-o", self.db_path, "--force", "--no-safety")
        self.assertIsNone(data["safety_backup"])
        self.assertFalse(os.path.exists(os.path.join(self.archive, "safety")))

    def test_without_one_nothing_changes(self):
        self.close()
        before = content(self.db_path)
        put(os.path.join(self.archive, "safety"), b"a file where a folder should be")
        run = self.run_restore("--from", self.backup, "-o", self.db_path, "--force")
        self.assert_fails(run, 1, "safety backup", "--no-safety")
        self.assertEqual(content(self.db_path), before)
        self.assertEqual(self.leftovers(), [])

    def test_a_live_replicator_goes_on(self):
        r = self.replicate()
        r.wait_ready()
        self.db.close()
        data = self.must("--from", self.backup, "--force")
        self.assertEqual(data["target"], self.db_path)
        self.assertEqual(counter_of(self.db_path), 5)
        db = self.open_db()
        commit(db)
        wait_for("a child lineage", lambda: (r.status() or {}).get("lineage", 0) > 1)
        r.wait_known()
        self.assertEqual(counter_of(self.restore("--latest")), 6)
        self.assertEqual(r.stop(), 0, r.log())


    def test_the_undo_can_be_pasted(self):
        """Whatever the name; and there is none where only a -wal was set aside."""
        self.close()
        target = self.path("it's \"odd\".db")
        shutil.copy(self.db_path, target)
        run = self.run_restore("--from", self.backup, "-o", target, "--force")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(counter_of(target), 5)
        undo = next(s for s in run.stdout.splitlines() if s.startswith("  undo"))
        words = shlex.split(undo)[2:]
        self.assertEqual(self.run_restore(*words[1:]).returncode, 0, undo)
        self.assertEqual(counter_of(target), 10)
        alone = self.path("alone.db")
        put(alone + "-wal", b"left behind")
        run = self.run_restore("--from", self.backup, "-o", alone, "--force")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("  kept", run.stdout)
        self.assertNotIn("undo", run.stdout)


class Targets(BackupCase):
    def test_a_side_file_is_no_target(self):
        """Over the -wal of a database that is at work, say."""
        for side in SIDES:
            run = self.run_restore("--from", self.backup, "-o", self.db_path + side, "--force")
            self.assert_fails(run, 2, self.db_path + side, "SQLite")
        self.assertEqual(counter_of(self.db_path), 10)

    def test_by_name(self):
        """What the archive calls /data/db/x.db lies in $DATA_DIR/db here."""
        r = self.replicate()
        r.wait_ready()
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.db.close()
        home = self.path("home")
        os.makedirs(os.path.join(home, "db"))
        archive = self.path("moved")
        shutil.copytree(self.archive, archive)
        note = os.path.join(archive, "local", "trades.db", "source")
        text = content(note).decode().replace(self.db_path, "/nowhere/db/trades.db")
        put(note, text.encode())
        self.seal_note(note)
        base = ["restore", "--archive", archive]
        self.assert_fails(asof(*base, "--latest"), 3, "/nowhere/db/trades.db", "-o OUT",
                          "DATA_DIR")
        there = os.path.join(home, "db", "trades.db")
        for which in (["--latest"], ["--from", self.backup]):
            run = asof(*base, *which, "--force", env={"DATA_DIR": home})
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn(there, run.stdout)
            self.assertIn("/nowhere/db/trades.db, where it lay, is not on this machine", run.stdout)
        self.assertEqual(counter_of(there), 5)

    def seal_note(self, path):
        lines = content(path).decode().splitlines(keepends=True)[:-1]
        sum_line = subprocess.run(
            [sys.executable, "-c", "import ctypes, sys\n"
             "x = ctypes.CDLL('libxxhash.so.0')\n"
             "x.XXH3_64bits_withSeed.restype = ctypes.c_uint64\n"
             "x.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, "
             "ctypes.c_uint64]\n"
             "t = sys.stdin.buffer.read()\n"
             "print(f'sum {x.XXH3_64bits_withSeed(t, len(t), 0):016x}')"],
            input="".join(lines), text=True, stdout=subprocess.PIPE, check=True).stdout
        put(path, ("".join(lines) + sum_line).encode())

    def test_litestreams_words(self):
        out = self.path("out.db")
        run = self.run_restore("--latest", "--if-replica-exists", "-o", out)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertFalse(os.path.exists(out))
        self.assert_fails(self.run_restore("--latest", "-o", out), 3)
        put(out, b"there")
        run = self.run_restore("--from", self.backup, "--if-db-not-exists", "-o", out)
        self.assertEqual((run.returncode, content(out)), (0, b"there"))
        os.unlink(out)
        run = self.run_restore("--from", self.backup, "--if-db-not-exists", "-o", out)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(counter_of(out), 5)

    def test_usage(self):
        self.assert_fails(self.run_restore("--from", self.backup, "--latest"), 2, "give one of")
        self.assert_fails(self.run_restore("--interactive"), 2, "terminal")
        self.assert_fails(self.run_restore("--from", ""), 2, "empty")
        self.assert_fails(self.run_restore("--from", put(self.path("odd.db.gz"), content(
            self.backup))), 2, "odd", "-o OUT")

    def test_without_a_terminal_it_refuses(self):
        self.close()
        before = content(self.db_path)
        run = self.run_restore("--from", self.backup, "-o", self.db_path)
        self.assert_fails(run, 1, "--force")
        self.assertEqual(content(self.db_path), before)

    def test_dry_run(self):
        self.close()
        before = sorted(os.walk(self.dir))
        data = self.must("--from", self.backup, "-o", self.db_path, "--force", "--dry-run")
        self.assertEqual((data["bytes"], data["replaced"]), (len(self.plain()), True))
        delta = self.must("--from", self.backup, "-o", self.db_path, "--force", "--dry-run",
                          "--delta")
        self.assertEqual(delta["method"], "in-place")
        self.assertEqual(sorted(os.walk(self.dir)), before)
        self.assertEqual(counter_of(self.db_path), 10)


class Terminal(BackupCase):
    """A person's side of it, through a pseudo terminal."""

    def talk(self, args, answers, archive=None):
        """[(what is waited for, what is then typed)]; all that was said, and the exit status."""
        harness.need_terminal()
        pid, fd = pty.fork()
        if pid == 0:
            os.execv(ASOF, [ASOF, "restore", "--archive", archive or self.archive, *args])
        said, end = "", time.monotonic() + harness.PATIENCE
        asked = 0
        try:
            for prompt, typed in [*answers, (None, None)]:
                while prompt is None or prompt not in said[asked:]:
                    if time.monotonic() > end:
                        raise AssertionError(f"waited for {prompt!r}: {said}")
                    if not select.select([fd], [], [], 0.2)[0]:
                        continue
                    try:
                        piece = os.read(fd, 4096).decode(errors="replace")
                    except OSError:
                        piece = ""
                    if not piece:
                        break
                    said += piece
                if prompt is not None:
                    self.assertIn(prompt, said[asked:])
                    asked = len(said)
                    os.write(fd, typed.encode() + b"\n")
            _, status = os.waitpid(pid, 0)
            pid = 0
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            os.close(fd)
        return said, os.waitstatus_to_exitcode(status)

    def test_confirming(self):
        self.close()
        before = content(self.db_path)
        args = ["--from", self.backup, "-o", self.db_path]
        for no in ("n", "", "x"):
            said, status = self.talk(args, [("[y/N]", no)])
            self.assertEqual((status, content(self.db_path)), (0, before), said)
            self.assertIn("nothing was changed", said)
        said, status = self.talk(args, [("[y/N]", "y")])
        self.assertEqual((status, counter_of(self.db_path)), (0, 5), said)
        self.assertIn("safety/trades_pre_restore_", said)
        said, status = self.talk(["--from", self.backup, "-o", self.path("new.db")], [])
        self.assertEqual((status, counter_of(self.path("new.db"))), (0, 5), said)

    def test_who_has_it_open(self):
        p = subprocess.Popen([sys.executable, "-c", "import sqlite3, sys\n"
                              "db = sqlite3.connect(sys.argv[1])\n"
                              "db.execute('SELECT * FROM rows').fetchone()\n"
                              "print('ready', flush=True)\nsys.stdin.read()", self.db_path],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.communicate)
        self.assertEqual(p.stdout.readline(), "ready\n")
        said, status = self.talk(["--from", self.backup, "-o", self.db_path], [("[y/N]", "n")])
        self.assertEqual(status, 0)
        self.assertIn("WARNING: process", said)

    def test_a_backup(self):
        self.close()
        said, status = self.talk(["--interactive", "-o", self.db_path],
                                 [("> ", "3"), ("no safety backups", ""), ("> ", "1"),
                                  ("which one?", "1"), ("[y/N]", "y")])
        self.assertEqual((status, counter_of(self.db_path)), (0, 5), said)
        self.assertRegex(said, r"\n  counter +1\r")
        self.assertRegex(said, r"\n  rows +100\r")
        said, status = self.talk(["--interactive"], [("> ", "6")])
        self.assertEqual(status, 0)
        self.assertIn("nothing was changed", said)

    def test_a_moment(self):
        r = self.replicate()
        r.wait_ready()
        r.wait_known()
        txid = r.status()["last_txid"]
        commit(self.db)
        r.wait_known()
        self.assertEqual(r.stop(), 0)
        self.db.close()
        out = self.path("out.db")
        said, status = self.talk(["--interactive", "-o", out],
                                 [("> ", "5"), ("as of when?", "2001-01-01"), ("> ", "5"),
                                  ("as of when?", f"txid {txid}"), ("[y/N]", "y")])
        self.assertEqual((status, counter_of(out)), (0, 10), said)
        said, status = self.talk(["--interactive", "-o", self.path("out2.db")],
                                 [("> ", "5"), ("as of when?", ""), ("[y/N]", "n")])
        self.assertEqual(status, 0)
        self.assertIn("\n  counter", said)
        self.assertFalse(os.path.exists(self.path("out2.db")))


class Delta(BackupCase):
    def grow(self, pages):
        self.db.execute("CREATE TABLE bulk (data)")
        self.db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                        "?) INSERT INTO bulk SELECT randomblob(3800) FROM n", (pages,))
        self.backup = asof_json("backup", "--archive", self.archive, "--db-path",
                                self.db_path)["backup_path"]
        for _ in range(5):
            commit(self.db)

    def check_in_place(self, small):
        inode = os.stat(self.db_path).st_ino
        data = self.must("--from", self.backup, "-o", self.db_path, "--force", "--delta")
        self.assertEqual(data["method"], "in-place")
        self.assertEqual(os.stat(self.db_path).st_ino, inode)
        self.assertEqual(content(self.db_path), self.plain())
        self.assertLess(data["written_bytes"], small)
        for side in SIDES:
            self.assertFalse(os.path.exists(self.db_path + side))
        self.assertEqual(counter_of(self.db_path), 10)
        out = self.path("out.db")
        self.must("--from", data["safety_backup"], "-o", out)
        return out

    def test_in_place(self):
        self.grow(2000)
        self.close()
        out = self.check_in_place(len(self.plain()) / 50)
        self.assertEqual(counter_of(out), 15)

    def test_with_a_wal(self):
        self.grow(500)
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        commit(self.db)
        self.crash()
        out = self.check_in_place(len(self.plain()) / 10)
        self.assertEqual(counter_of(out), 16)

    def test_gzip_of_others(self):
        self.grow(500)
        self.close()
        self.backup = put(self.path("x.db.gz"), gzip.compress(self.plain()))
        self.check_in_place(len(self.plain()) / 10)

    def test_smaller_and_larger(self):
        self.grow(300)
        small = asof_json("backup", "--archive", self.archive, "--db-path",
                          self.db_path)["backup_path"]
        self.db.execute("DELETE FROM bulk")
        self.db.execute("VACUUM")
        self.close()
        for backup in (small, self.backup):
            self.must("--from", backup, "-o", self.db_path, "--force", "--delta")
            self.assertEqual(content(self.db_path), gzip.decompress(content(backup)))

    def test_under_a_replicator_it_is_a_new_file(self):
        r = self.replicate()
        r.wait_ready()
        self.db.close()
        inode = os.stat(self.db_path).st_ino
        data = self.must("--from", self.backup, "--force", "--delta")
        self.assertIn(data["method"], ("whole", "shared"))
        self.assertNotEqual(os.stat(self.db_path).st_ino, inode)
        db = self.open_db()
        commit(db)
        wait_for("a child lineage", lambda: (r.status() or {}).get("lineage", 0) > 1)
        self.assertEqual(r.stop(), 0, r.log())


@unittest.skipUnless(os.path.exists(DIE_IO), "no die_io.so beside the program")
@unittest.skipIf("asan" in ASOF, "the sanitizer must be the first library")
class Dying(BackupCase):
    """kill -9 at every call that changes a file, over a database with commits in its -wal."""

    def setUp(self):
        super().setUp()
        self.crash()
        self.kept = {s: content(self.db_path + s) for s in ("", "-wal")}

    def put_back(self):
        for name in os.listdir(self.dir):
            if name.startswith("trades.db"):
                os.unlink(self.path(name))
        for side, data in self.kept.items():
            put(self.db_path + side, data)

    def sweep(self, options, check):
        deaths = 0
        for at in range(1, 400):
            self.put_back()
            run = self.run_restore("--from", self.backup, "-o", self.db_path, "--force", *options,
                                   env={"LD_PRELOAD": DIE_IO, "DIE_AT": str(at)})
            if run.returncode == 0:
                return deaths
            # The child that reads for a safety backup dies like this, too: then that fails.
            if run.returncode != -signal.SIGKILL:
                self.assertIn("safety backup", run.stderr)
            deaths += 1
            check()
            self.must("--from", self.backup, "-o", self.db_path, "--force", *options)
            self.assertEqual(counter_of(self.db_path), 5)
            self.assertEqual(self.leftovers(), [])
        self.fail("it never ended")

    def test_swap(self):
        seen = set()

        def check():
            intent = self.db_path + ".asof-restore.swap"
            if os.path.exists(intent):
                seen.add("intent")
                run = self.run_restore("--from", self.backup, "-o", self.db_path)
                self.assertEqual(run.returncode, 1)
                self.assertIn("--force", run.stderr)  # it first put things right
            seen.add(counter_of(self.db_path))
            self.assertFalse(os.path.exists(intent))
        self.assertGreater(self.sweep(["--no-safety"], check), 12)
        self.assertEqual(seen, {"intent", 5, 10})

    def test_swap_with_a_safety_backup(self):
        def check():
            run = self.run_restore("--from", self.backup, "-o", self.db_path)
            self.assertEqual(run.returncode, 1)
            self.assertIn("--force", run.stderr)
            self.assertIn(counter_of(self.db_path), (5, 10))
        self.assertGreater(self.sweep([], check), 25)

    def die_in_the_swap(self):
        """The -wal is aside, the new file not there yet."""
        for at in range(1, 400):
            self.put_back()
            self.run_restore("--from", self.backup, "-o", self.db_path, "--force", "--no-safety",
                             env={"LD_PRELOAD": DIE_IO, "DIE_AT": str(at)})
            if os.path.exists(self.db_path + ".asof-restore.swap") and \
                    not os.path.exists(self.db_path + "-wal"):
                return
        self.fail("it never died there")

    def test_a_replicator_takes_it_up(self):
        """It does not attach to the old file without its -wal."""
        self.die_in_the_swap()
        r = self.replicate()
        r.wait_ready()
        self.assertIn("an interrupted restore was undone", r.log())
        self.assertEqual(counter_of(self.db_path), 10)
        self.assertEqual(self.leftovers(), [])
        self.assertEqual(r.stop(), 0, r.log())
        self.assertEqual(counter_of(self.db_path), 10)

    def test_written_to_since(self):
        """By an application that closed it again: the old -wal would make it malformed."""
        self.die_in_the_swap()
        db = self.open_db()
        db.execute("CREATE TABLE other AS SELECT randomblob(100000) AS x")
        db.close()
        self.assertFalse(os.path.exists(self.db_path + "-wal"))
        kept = content(self.db_path)
        for options in ([], ["--force"]):
            run = self.run_restore("--from", self.backup, "-o", self.db_path, *options)
            self.assertEqual(run.returncode, 1)
            self.assertIn("written to", run.stderr)
            self.assertEqual(content(self.db_path), kept)
            self.assertFalse(os.path.exists(self.db_path + "-wal"))
        os.unlink(self.db_path + ".asof-restore.swap")
        self.must("--from", self.backup, "-o", self.db_path, "--force")
        self.assertEqual(counter_of(self.db_path), 5)

    def test_in_place(self):
        seen = set()

        def check():
            seen.add(counter_of(self.db_path))  # by plain SQLite, with nobody's help
        self.assertGreater(self.sweep(["--delta", "--no-safety"], check), 12)
        self.assertEqual(seen, {5, 10})


if __name__ == "__main__":
    harness.main()
