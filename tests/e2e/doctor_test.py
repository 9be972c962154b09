#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""asof doctor: each finding provoked by what causes it, and none of them where all is well."""

import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness

NOBODY = 65534
SEVERITIES = ["note", "warning", "serious"]
PAGE = os.path.join(harness.ROOT, "tools", "man", "asof-doctor.1.md")
GOLDEN = os.path.join(harness.ROOT, "tests", "data")
# Of the machine that the test runs on, not of what the test makes.
OF_THE_MACHINE = {"clock", "priority", "fuse", "inotify"}
MAGIC = bytes.fromhex("d9d505f920a163d7")


def clock_is_kept():
    """The same question, asked by other means: adjtimex(2), of a struct timex of zeros."""
    buf = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buf)
    status = int.from_bytes(buf.raw[40:44], "little", signed=True)  # behind modes and 4 longs
    return state != 5 and not status & 0x40


ELSEWHERE = """    destinations:
      - url: sftp://backup@example.com/asof
"""
WITHOUT_KEYS = """    destinations:
      - type: s3
        bucket: b-ucket
        region: eu-central-1
"""


def need_root():
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root")


class DoctorCase(harness.Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.dir, 0o755)
        fs = subprocess.run(["stat", "-fc", "%T", self.dir], stdout=subprocess.PIPE, text=True,
                            check=True).stdout.strip()
        # A scratch folder in memory, or in a container's layer, is rightly found.
        self.place = {"tmpfs": "memory-filesystem", "overlayfs": "container-layer"}.get(fs)

    def make_db(self, path=None, **pragmas):
        with contextlib.closing(harness.open_db(path or self.db_path, **pragmas)) as db:
            harness.make_counter(db)
        os.chmod(path or self.db_path, 0o644)

    def config(self, text="", database="", destination=True):
        """With a destination elsewhere, so that the disk is no finding."""
        path = self.path("asof.yml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\n{text}databases:\n  - path: {self.db_path}\n"
                    f"{database}{ELSEWHERE if destination else ''}")
        return path

    def run_doctor(self, *args, **kw):
        run = harness.asof("doctor", *args, "--json", timeout=60, **kw)
        answer = json.loads(run.stdout)
        found = answer["findings"]
        serious = [f for f in found if f["severity"] == "serious"]
        self.assertEqual(found, sorted(found, key=lambda f: -SEVERITIES.index(f["severity"])))
        self.assertEqual(answer["serious"], len(serious))
        self.assertEqual(run.returncode, 1 if serious else 0, run.stderr)
        self.assertEqual(bool(run.stderr), bool(serious), run.stderr)
        for f in found:
            self.assertTrue(f["why"] and f["what_to_do"] and f["thing"], f)
        return answer

    def findings(self, *args, **kw):
        """check: severity of what is of the test's making."""
        found = {}
        for f in self.run_doctor(*args, **kw)["findings"]:
            if f["check"] == self.place or (f["check"] in OF_THE_MACHINE and
                                            f["thing"] in ("clock", "priority", "mount", "inotify")):
                continue
            old = found.get(f["check"], "note")
            found[f["check"]] = max(old, f["severity"], key=SEVERITIES.index)
        return found

    def configured(self, *args, **kw):
        return self.findings("--config", self.config(**kw), *args)


class Databases(DoctorCase):
    def test_nothing_where_all_is_well(self):
        self.make_db()
        os.mkdir(self.archive)
        self.assertEqual(self.configured(), {})
        run = harness.asof("doctor", "--config", self.path("asof.yml"))
        if not self.place:
            self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertIn("busy_timeout", run.stdout)  # what it cannot see it says
        self.assertIn("looked at 1 database;", run.stdout)

    def test_a_line_each(self):
        self.make_db(journal_mode="DELETE")
        run = harness.asof("doctor", self.db_path)
        self.assertEqual(run.returncode, 1)
        line = [x for x in run.stdout.splitlines() if x.startswith("serious  journal-mode")]
        self.assertEqual(len(line), 1)
        self.assertIn(self.db_path, line[0])
        self.assertRegex(run.stderr, r"\Aasof: doctor: \d+ serious findings? \(see above\)\n\Z")

    def test_nothing_is_written_and_no_lock_is_dropped(self):
        self.make_db()
        db = self.open_db()
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE counter SET n = n + 1")

        def contents():
            found = {}
            for name in sorted(os.listdir(self.dir)):
                if name.startswith("trades.db"):
                    with open(self.path(name), "rb") as f:
                        found[name] = f.read()
            return found
        before = contents()
        self.run_doctor(self.db_path)
        self.assertEqual(contents(), before)
        with contextlib.closing(sqlite3.connect(self.db_path, timeout=0)) as other:
            with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
                other.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")

    def test_journal_mode(self):
        self.make_db(journal_mode="DELETE")
        os.mkdir(self.archive)
        self.assertEqual(self.configured(), {"journal-mode": "serious"})
        self.assertEqual(self.configured(database="    enable-wal: true\n"),
                         {"journal-mode": "warning"})

    def test_missing_empty_and_no_database(self):
        os.mkdir(self.archive)
        self.assertEqual(self.configured(), {"missing": "note"})
        open(self.db_path, "w", encoding="utf-8").close()
        self.assertEqual(self.configured(), {"empty": "note"})
        with open(self.db_path, "wb") as f:
            f.write(os.urandom(4096))
        self.assertEqual(self.configured()["not-a-database"], "serious")
        os.unlink(self.db_path)
        os.mkfifo(self.db_path)
        self.assertEqual(self.configured(), {"not-a-database": "serious"})

    def test_stale_wal(self):
        self.make_db(journal_mode="DELETE")
        with open(self.db_path + "-wal", "wb") as f:
            f.write(b"\x37\x7f\x06\x82" + bytes(4092))
        self.assertEqual(self.configured().get("stale-wal"), "serious")

    def test_hot_journal(self):
        self.make_db()
        os.mkdir(self.archive)
        with open(self.db_path + "-journal", "wb") as f:
            f.write(bytes(512))  # as journal_mode=PERSIST leaves it: no finding
        self.assertEqual(self.configured(), {})
        with open(self.db_path + "-journal", "wb") as f:
            f.write(MAGIC + bytes(504))
        self.assertEqual(self.configured(), {"hot-journal": "serious"})

    def test_a_journal_in_use_is_none_of_a_crash(self):
        self.make_db(journal_mode="DELETE")
        os.mkdir(self.archive)
        db = self.open_db(journal_mode="DELETE")
        db.execute("PRAGMA cache_spill = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE counter SET n = n + 1")
        self.assertTrue(os.path.exists(self.db_path + "-journal"))
        self.assertNotIn("hot-journal", self.configured())

    def test_wal_size(self):
        self.make_db()
        os.mkdir(self.archive)
        db = self.open_db(wal_autocheckpoint=0)
        while os.path.getsize(self.db_path + "-wal") < 600_000:
            harness.commit(db, 100)
        cap = "    wal-cap: {}\n"
        self.assertNotIn("wal-size", self.configured(database=cap.format("64M")))
        self.assertEqual(self.configured(database=cap.format("1M"))["wal-size"], "warning")
        self.assertEqual(self.configured(database=cap.format("512K"))["wal-size"], "serious")

    def test_page_size(self):
        self.make_db(page_size=1024)
        os.mkdir(self.archive)
        self.assertEqual(self.configured(), {"page-size": "note"})

    def test_modes(self):
        self.make_db()
        os.mkdir(self.archive)
        os.chmod(self.db_path, 0o600)
        self.assertEqual(self.configured(), {})
        db = self.open_db()
        harness.commit(db)
        os.chmod(self.db_path + "-wal", 0o644)
        self.assertEqual(self.configured()["modes"], "warning")
        os.chmod(self.db_path + "-wal", 0o600)
        self.assertNotIn("modes", self.configured())
        os.chmod(self.db_path, 0o666)
        self.assertEqual(self.configured()["modes"], "warning")

    def test_two_names(self):
        self.make_db()
        os.mkdir(self.archive)
        os.link(self.db_path, self.path("other.db"))
        self.assertEqual(self.configured(), {"two-names": "serious"})

    def test_exclusive(self):
        self.make_db()
        os.mkdir(self.archive)
        db = self.open_db(locking_mode="EXCLUSIVE")
        harness.commit(db)
        self.assertEqual(self.configured()["exclusive"], "serious")
        db.close()
        self.assertEqual(self.configured(), {})

    def test_future(self):
        self.make_db()
        os.mkdir(self.archive)
        later = time.time() + 3600
        os.utime(self.db_path, (later, later))
        self.assertEqual(self.configured(), {"clock": "warning"})

    def test_permission(self):
        need_root()
        self.make_db()
        db = self.open_db()
        harness.commit(db)
        config = self.config()
        as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chmod(config, 0o644)
        self.assertEqual(self.findings("--config", config, **as_nobody)["permission"], "serious")
        for end in ("", "-wal", "-shm"):
            os.chown(self.db_path + end, NOBODY, NOBODY)
        self.assertNotIn("permission", self.findings("--config", config, **as_nobody))
        os.chown(self.db_path, 0, 0)
        os.chmod(self.db_path, 0o600)
        self.assertEqual(self.findings("--config", config, **as_nobody)["permission"], "serious")


class Applications(DoctorCase):
    """An application in another process."""

    def application(self, code):
        """Runs `code` in Python with `db` open, until stdin closes."""
        process = subprocess.Popen(
            [sys.executable, "-c", "import ctypes, os, sqlite3, sys\n"
             "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
             "db.execute('UPDATE counter SET n = n + 1')\n"
             f"{code}\nprint('ready', flush=True)\nsys.stdin.read()", self.db_path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def setUp(self):
        super().setUp()
        self.make_db()
        os.mkdir(self.archive)

    def test_sqlite_version(self):
        self.application("")
        answer = self.run_doctor("--config", self.config())
        self.assertEqual(answer["databases"][0]["processes"], 1)
        found = {f["check"]: f["why"] for f in answer["findings"]}
        version = sqlite3.sqlite_version_info
        old = version < (3, 51, 3) and not (3, 50, 7) <= version < (3, 51) and \
            not (3, 44, 6) <= version < (3, 45)
        self.assertEqual("sqlite-version" in found, old)
        self.assertEqual("sqlite-checksums" in found, version < (3, 50, 2))
        if old:
            self.assertIn(f"SQLite {sqlite3.sqlite_version} ", found["sqlite-version"])
            self.assertNotIn("several", found["sqlite-version"])
            self.application("")
            found = {f["check"]: f["why"]
                     for f in self.run_doctor("--config", self.config())["findings"]}
            self.assertIn("several processes", found["sqlite-version"])

    def sqlite_object(self):
        with open("/proc/self/maps", encoding="utf-8") as f:
            paths = {line.split()[-1] for line in f if "libsqlite3" in line}
        if not paths:
            raise unittest.SkipTest("SQLite is no library of its own here")
        return paths.pop()

    def test_a_version_without_known_bugs(self):
        """The very library, but that its texts are those of a version that is mended."""
        real = sqlite3.sqlite_version.encode()
        with open(self.sqlite_object(), "rb") as f:
            content = f.read()
        for version, bugs in ((b"3.51.2", {"sqlite-version"}), (b"3.51.3", set()),
                              (b"3.50.7", set()), (b"3.50.6", {"sqlite-version"}),
                              (b"3.44.6", {"sqlite-checksums"}),
                              (b"3.49.9", {"sqlite-version", "sqlite-checksums"})):
            copy = self.path("libsqlite3.so." + version.decode())
            with open(copy, "wb") as f:
                f.write(content.replace(b"\0" + real + b"\0", b"\0" + version + b"\0"))
            process = subprocess.Popen(
                [sys.executable, "-c", "import sqlite3, sys\n"
                 "db = sqlite3.connect(sys.argv[1])\ndb.execute('SELECT * FROM counter')\n"
                 "print('ready', flush=True)\nsys.stdin.read()", self.db_path],
                env={**os.environ, "LD_PRELOAD": copy}, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True)
            self.assertEqual(process.stdout.readline(), "ready\n")
            found = {f["check"] for f in self.run_doctor("--config", self.config())["findings"]
                     if copy in f["why"]}
            process.communicate("")
            self.assertEqual(found - {"two-sqlites"}, bugs, version)

    def test_two_copies_of_sqlite(self):
        copy = self.path("other.so")
        shutil.copy(self.sqlite_object(), copy)
        self.application("")
        self.assertNotIn("two-sqlites", self.configured())
        self.application(f"ctypes.CDLL({copy!r})")
        self.assertEqual(self.configured()["two-sqlites"], "warning")

    def test_deleted_file(self):
        self.application("")
        self.assertNotIn("deleted-file", self.configured())
        os.rename(self.db_path, self.path("aside"))
        shutil.copy(self.path("aside"), self.db_path)
        os.unlink(self.path("aside"))
        os.unlink(self.db_path + "-wal")
        self.assertEqual(self.configured()["deleted-file"], "serious")

    def test_asof_is_no_application(self):
        replicator = self.replicate()
        replicator.wait_ready()
        answer = self.run_doctor("--config", self.config())
        self.assertEqual(answer["databases"][0]["processes"], 0)


class Places(DoctorCase):
    def test_one_disk(self):
        self.make_db()
        os.mkdir(self.archive)
        self.assertEqual(self.configured(destination=False), {"one-disk": "serious"})

    def test_another_disk(self):
        if os.stat("/dev/shm").st_dev == os.stat(self.dir).st_dev:
            self.skipTest("there is one filesystem alone")
        self.make_db()
        self.archive = f"/dev/shm/asof-doctor-{os.getpid()}"
        os.mkdir(self.archive)
        self.addCleanup(shutil.rmtree, self.archive)
        found = self.configured(destination=False)
        self.assertEqual(found.get("one-machine"), "warning")
        self.assertNotIn("one-disk", found)

    def test_a_server_on_this_machine_is_no_other_machine(self):
        self.make_db()
        os.mkdir(self.archive)
        for host, found in (("127.0.0.1", {"one-machine": "warning"}),
                            ("localhost", {"one-machine": "warning"}),
                            ("me@localhost", {"one-machine": "warning"}),
                            ("localhost@example.com", {})):
            config = self.config(destination=False)
            with open(config, "a", encoding="utf-8") as f:
                f.write(ELSEWHERE.replace("backup@example.com", host))
            self.assertEqual(self.findings("--config", config), found, host)

    def test_destination_without_keys(self):
        self.make_db()
        os.mkdir(self.archive)
        config = self.config(destination=False)
        with open(config, "a", encoding="utf-8") as f:
            f.write(WITHOUT_KEYS)
        self.assertEqual(self.findings("--config", config),
                         {"destination": "warning", "one-disk": "serious"})

    def test_memory(self):
        fs = subprocess.run(["stat", "-fc", "%T", "/dev/shm"], stdout=subprocess.PIPE, text=True,
                            check=True).stdout.strip()
        if fs != "tmpfs":
            self.skipTest("/dev/shm is no tmpfs")
        folder = f"/dev/shm/asof-doctor-{os.getpid()}"
        os.mkdir(folder)
        self.addCleanup(shutil.rmtree, folder)
        self.db_path = folder + "/trades.db"
        self.make_db()
        self.place = None
        self.assertEqual(self.configured().get("memory-filesystem"), "warning")

    def in_own_mounts(self, script):
        need_root()
        run = subprocess.run(["unshare", "-m", "sh", "-ec", script], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        if any(text in run.stderr for text in ("denied", "not permitted", "filesystem propagation")):
            raise unittest.SkipTest("may not mount here: " + run.stderr)
        return {f["check"]: f for f in json.loads(run.stdout)["findings"]}

    def test_container_layer(self):
        for name in ("ro", "mnt", "memory"):
            os.mkdir(self.path(name))
        found = self.in_own_mounts(f"""
            cd {self.dir}; mount -t tmpfs none memory; mkdir memory/up memory/work
            mount -t overlay overlay -o lowerdir=ro,upperdir=memory/up,workdir=memory/work mnt
            sqlite3 mnt/x.db 'PRAGMA journal_mode=WAL; CREATE TABLE t (a)' >/dev/null
            {harness.ASOF} doctor --json mnt/x.db || :; umount mnt""")
        self.assertEqual(found["container-layer"]["severity"], "serious")

    def test_full_soon(self):
        """Backups of a megabyte a day where 20 MB are left; and where next to nothing is."""
        os.mkdir(self.path("mnt"))
        for size, severity in (("40m", "warning"), ("16m", "serious"), ("10100k", "serious"),
                               ("900m", None)):
            found = self.in_own_mounts(f"""
                cd {self.dir}/mnt; mount -t tmpfs -o size={size} none .; cd {self.dir}/mnt; mkdir manual
                day=0
                while [ $day -lt 10 ]; do day=$((day + 1))
                    when=$(date -u -d "-$day days" +%Y%m%d_%H%M%S)
                    head -c 1000000 /dev/zero >manual/x_$when.db.gz
                    touch -d "-$day days" manual/x_$when.db.gz
                done
                {harness.ASOF} doctor --json --archive . || :""")
            self.assertEqual(found.get("space", {}).get("severity"), severity, (size, found))

    def test_fuse_and_a_mount_that_hangs(self):
        harness.need_fuse()
        need_root()
        self.make_db()
        r = self.replicate()
        r.wait_ready()
        mnt = self.path("mnt")
        os.mkdir(mnt)
        self.assertEqual(harness.asof("mount", self.archive, mnt).returncode, 0)
        past = os.path.join(mnt, "latest", "trades.db")
        self.assertEqual(self.findings(past).get("network-filesystem"), "serious")
        server = self.server_of(mnt)
        config = self.config(text=f"mount:\n  dir: {mnt}\n")
        os.kill(server, signal.SIGSTOP)
        try:
            # The kernel may know the names for a second yet; another path it does not.
            started = time.monotonic()
            found = self.findings(os.path.join(mnt, "at", "2001-01-01", "trades.db"))
            self.assertEqual(found, {"no-answer": "serious"})
            self.assertLess(time.monotonic() - started, 40)
        finally:
            os.kill(server, signal.SIGCONT)
        os.kill(server, signal.SIGKILL)
        harness.wait_for("the end of the mount", lambda: not os.path.exists(f"/proc/{server}"))
        found = self.findings("--config", config)
        self.assertEqual(found.get("dead-mount"), "serious", found)

    def server_of(self, mnt):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if b"mount" in words and mnt.encode() in words and self.archive.encode() in words:
                return int(pid)
        raise AssertionError("no server")


class Archives(DoctorCase):
    def test_capture(self):
        self.make_db()
        r = self.replicate()
        r.wait_ready()
        self.assertEqual(self.configured(), {})
        # Also without a configuration, by what the archive says.
        self.assertEqual(self.findings("--archive", self.archive), {"one-disk": "serious"})
        r.stop()
        self.assertEqual(self.configured(), {"not-captured": "serious"})

    def test_a_replicator_that_stands_still(self):
        self.make_db()
        r = self.replicate()
        r.wait_ready()
        r.wait_known()
        r.process.send_signal(signal.SIGSTOP)
        try:
            # As if looked at later, by a clock that only the program sees.
            self.assertNotIn("behind", self.configured())
            shutil.copytree(self.archive, self.path("copy"))
            found = self.later(120)
            self.assertEqual(found.get("behind"), "serious")
        finally:
            r.process.send_signal(signal.SIGCONT)

    def later(self, seconds):
        library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
        if not os.path.exists(library):
            raise unittest.SkipTest("no libfaketime here")
        return self.findings("--config", self.config(), env={
            "LD_PRELOAD": library, "FAKETIME": f"{seconds:+}s",
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"})

    def test_clock_went_back(self):
        self.make_db()
        r = self.replicate()
        r.wait_ready()
        self.assertEqual(self.later(-3600).get("clock"), "warning")

    def test_backup_of_tomorrow(self):
        os.makedirs(os.path.join(self.archive, "manual"))
        later = time.time() + 86400
        name = time.strftime("x_%Y%m%d_%H%M%S.db.gz", time.localtime(later))
        path = os.path.join(self.archive, "manual", name)
        with open(path, "wb") as f:
            f.write(b"x")
        os.utime(path, (later, later))
        self.assertEqual(self.findings("--archive", self.archive), {"clock": "warning"})

    def test_gap(self):
        self.make_db()
        r = self.replicate()
        r.wait_ready()
        r.stop()
        db = self.open_db()
        for _ in range(3):
            harness.commit(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        harness.commit(db)
        r = self.replicate()
        harness.wait_for("the gap", lambda: (r.status() or {}).get("gaps"))
        self.assertEqual(self.configured().get("gaps"), "warning")

    def test_of_old_gaps_nothing(self):
        shutil.copytree(os.path.join(GOLDEN, "golden-1"), self.archive)
        found = self.findings("--archive", self.archive)
        self.assertNotIn("gaps", found)
        self.assertEqual(found.get("not-verified"), "warning")
        self.assertEqual(harness.asof("validate", "--archive", self.archive).returncode, 0)
        self.assertNotIn("not-verified", self.findings("--archive", self.archive))

    def test_damage(self):
        shutil.copytree(os.path.join(GOLDEN, "golden-1"), self.archive)
        folder = os.path.join(self.archive, "local", "x.db", "snapshot")
        path = os.path.join(folder, sorted(os.listdir(folder))[0])
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            byte = f.read(1)[0]
            f.seek(-1, 1)
            f.write(bytes([byte ^ 0x40]))
        self.assertEqual(harness.asof("validate", "--archive", self.archive).returncode, 4)
        self.assertEqual(self.findings("--archive", self.archive).get("damaged"), "serious")

    def test_integrity(self):
        self.make_db()
        db = self.open_db()
        db.execute("CREATE TABLE t (a, b)")
        db.execute("CREATE INDEX i ON t (a)")
        db.execute("INSERT INTO t VALUES (1, 2), (3, 4)")
        db.execute("PRAGMA writable_schema = 1")
        db.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (b)' WHERE name = 'i'")
        db.close()
        self.replicate().wait_ready()
        self.assertNotIn("integrity", self.configured())
        harness.asof("validate", "--archive", self.archive)
        self.assertEqual(self.configured().get("integrity"), "serious")

    def test_newer_archive(self):
        shutil.copytree(os.path.join(GOLDEN, "golden-newer"), self.archive)
        self.assertEqual(self.findings("--archive", self.archive), {"unreadable": "serious"})

    def test_modes(self):
        self.make_db()
        os.chmod(self.db_path, 0o600)
        self.replicate().wait_ready()
        self.assertNotIn("modes", self.configured())
        for folder, _, files in os.walk(self.archive):
            for name in files:
                if not name.endswith(".sock"):
                    os.chmod(os.path.join(folder, name), 0o644)
            os.chmod(folder, 0o755)
        self.assertEqual(self.configured().get("modes"), "serious")
        os.chmod(self.db_path, 0o644)
        self.assertNotIn("modes", self.configured())

    def test_archive_of_somebody_else(self):
        need_root()
        self.make_db()
        os.mkdir(self.archive, 0o755)
        os.chmod(self.config(), 0o644)
        run = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        found = self.run_doctor("--config", self.path("asof.yml"), **run)["findings"]
        self.assertIn((self.archive, "permission"), [(f["thing"], f["check"]) for f in found])

    def schedules(self):
        return "backups:\n  schedules:\n    - name: nightly\n      schedule: '02:00'\n"

    def test_old_backup(self):
        self.make_db()
        folder = os.path.join(self.archive, "automated")
        os.makedirs(folder)
        for days, found in ((3, "warning"), (1, None)):
            then = time.time() - days * 86400
            path = os.path.join(folder, time.strftime("trades_%Y%m%d_%H%M%S.db.gz",
                                                      time.localtime(then)))
            with open(path, "wb") as f:
                f.write(b"x")
            os.utime(path, (then, then))
            self.assertEqual(self.configured(text=self.schedules()).get("old-backup"), found)
            self.assertNotIn("old-backup", self.configured())

    def test_failed_run(self):
        self.make_db()
        os.mkdir(self.archive)

        def line(ok, message, day=15):
            return json.dumps({"job": "backup nightly", "database": "trades.db",
                               "scheduled": f"2024-01-{day}T02:00:00Z",
                               "began": f"2024-01-{day}T02:00:00Z",
                               "ended": f"2024-01-{day}T02:00:09Z",
                               "ok": ok, "message": message}) + "\n"
        with open(os.path.join(self.archive, "journal"), "w", encoding="utf-8") as f:
            f.write(line(False, "no room"))
        self.assertEqual(self.configured(), {"failed-run": "serious"})
        with open(os.path.join(self.archive, "journal"), "a", encoding="utf-8") as f:
            f.write(line(True, "", 16))
        self.assertEqual(self.configured(), {})


class Machine(DoctorCase):
    def setUp(self):
        super().setUp()
        self.make_db()
        os.mkdir(self.archive)

    def of_machine(self, thing, *args, **kw):
        return [f["check"] for f in self.run_doctor(*args, **kw)["findings"] if f["thing"] == thing]

    def test_clock(self):
        self.assertEqual(self.of_machine("clock", self.db_path),
                         [] if clock_is_kept() else ["clock"])

    def test_open_files(self):
        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
        config = self.config()
        self.assertEqual(self.findings("--config", config, preexec_fn=few),
                         {"open-files": "serious"})

    def test_inotify(self):
        need_root()
        os.chmod(self.config(), 0o644)
        # As a user of its own, whose instances nobody else needs.
        inotify_init = ctypes.CDLL(None).inotify_init

        def take_all():
            os.setgroups([])
            os.setgid(64999)
            os.setuid(64999)
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            fds = []
            while (fd := inotify_init()) >= 0 and len(fds) < 4000:
                fds.append(fd)
                os.set_inheritable(fd, True)
        with open("/proc/sys/fs/inotify/max_user_instances", encoding="ascii") as f:
            if int(f.read()) > 3000:
                self.skipTest("too many instances to take")
        args = ("--config", self.path("asof.yml"))
        self.assertEqual(self.of_machine("inotify", *args, user=64999, group=64999,
                                         extra_groups=[]), [])
        self.assertEqual(self.of_machine("inotify", *args, preexec_fn=take_all, close_fds=False),
                         ["inotify"])

    def test_priority(self):
        need_root()
        os.chmod(self.config(), 0o644)
        args = ("--config", self.path("asof.yml"))
        if not self.of_machine("priority", *args):
            self.assertEqual(self.of_machine("priority", *args, user=NOBODY, group=NOBODY,
                                             extra_groups=[]), ["priority"])

    def test_fuse(self):
        need_root()
        if not os.path.exists("/dev/fuse"):
            self.skipTest("no FUSE here: /dev/fuse is missing")
        os.mkdir(self.path("mnt"))
        as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        config = self.config(text=f"mount:\n  dir: {self.path('mnt')}\n")
        os.chmod(config, 0o644)
        fuse = [f for f in self.run_doctor("--config", config)["findings"] if f["check"] == "fuse"]
        self.assertEqual(fuse, [])
        none = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
        run = subprocess.run([*none, harness.ASOF, "doctor", "--json", "--config", config],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                             check=False)
        fuse = [f for f in json.loads(run.stdout)["findings"] if f["check"] == "fuse"]
        self.assertEqual([f["severity"] for f in fuse], ["serious"])
        self.assertIn("CAP_SYS_ADMIN", fuse[0]["why"])
        config = self.config(text=f"mount:\n  dir: {self.path('mnt')}\n  options: allow_other\n")
        with open("/etc/fuse.conf", encoding="utf-8") as f:
            allowed = re.search("^user_allow_other", f.read(), re.M)
        why = [f["why"] for f in self.run_doctor("--config", config, **as_nobody)["findings"]
               if f["check"] == "fuse"]
        self.assertEqual(any("allow_other" in w for w in why), not allowed, why)


class Words(unittest.TestCase):
    def test_every_check_is_in_the_manual(self):
        with open(PAGE, encoding="utf-8") as f:
            notes = f.read().split("# NOTES")[1].split("# EXIT STATUS")[0]
        documented = {w for line in re.findall(r"^(`.*)$", notes, re.M)
                      for w in re.findall(r"`([^`]+)`", line)}
        used = set()
        folder = os.path.join(harness.ROOT, "tools")
        for name in os.listdir(folder):
            if "doctor" in name and name.endswith(".c"):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    text = " ".join(f.read().split())
                used |= set(re.findall(
                    r'doctor_add\([^"]*?(?:"[^"]*" ?: ?"[^"]*")?[^"]*?"([a-z-]+)"', text))
        self.assertEqual(used, documented)

    def test_wrong_usage(self):
        run = harness.asof("doctor", "--config", "/nonexistent/asof.yml")
        self.assertEqual(run.returncode, 2)


if __name__ == "__main__":
    harness.main()
