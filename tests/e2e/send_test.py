#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backups beyond one machine: sent to a bucket, a server, a folder; recovered from there."""
# runner: timeout=300

import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import radosgw  # noqa: E402
import sshd  # noqa: E402
from harness import asof, commit, counter_of, make_counter, wait_for  # noqa: E402

NAME = "trades.db"
KEY = "/".join(("manual", "trades_*.db.gz"))


class SendCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.db = self.open_db()
        make_counter(self.db)
        self.config = self.path("asof.yml")
        self.env = {}

    def configure(self, *destinations, more=""):
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\nhttp: {{listen: none}}\nsocket: {self.path('sock')}\n"
                    f"dbs:\n- path: {self.db_path}\n")
            if destinations:
                f.write("  destinations:\n" + "".join(f"  - {d}\n" for d in destinations))
            f.write(more)

    def asof(self, *args):
        return asof(*args, "--config", self.config, env=self.env)

    def backup(self, *options):
        run = self.asof("backup", "--json", *options)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def names(self, root, kind="manual"):
        with contextlib.suppress(FileNotFoundError):
            return sorted(n for n in os.listdir(os.path.join(root, kind)) if n[0] != ".")
        return []

    def assert_same(self, there, kind="manual"):
        """What is there is what is here, byte for byte."""
        names = self.names(self.archive, kind)
        self.assertEqual(self.names(there, kind), names)
        for name in names:
            with open(os.path.join(self.archive, kind, name), "rb") as a, \
                    open(os.path.join(there, kind, name), "rb") as b:
                self.assertEqual(a.read(), b.read(), name)

    def run_daemon(self):
        log = self.path("log")
        with open(log, "w", encoding="utf-8") as out:
            p = subprocess.Popen([harness.ASOF, "run", "--config", self.config], stdout=out,
                                 stderr=out, stdin=subprocess.DEVNULL, cwd=self.dir,
                                 env={**os.environ, **self.env})
        self.addCleanup(self.end, p)

        def ready():
            with open(log, encoding="utf-8") as f:
                text = f.read()
            self.assertIsNone(p.poll(), text)
            return "info run ready" in text
        wait_for("the daemon", ready, 60)
        return p

    def end(self, p):
        if p.poll() is None:
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(harness.PATIENCE)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()


class Folder(SendCase):
    def setUp(self):
        super().setUp()
        self.there = self.path("there")

    def test_at_once(self):
        """asof backup sends it, once; with what was made before the destination was there."""
        self.configure()
        self.assertNotIn("sent", self.backup())
        self.configure(self.there)
        answer = self.backup("--label", "before_migration")
        self.assertEqual([(s["destination"], s["there"], s["waiting"], s["error"])
                          for s in answer["sent"]], [("file", 2, 0, None)])
        self.assert_same(self.there)
        self.assertEqual(len(self.names(self.there)), 4)
        for name in self.names(self.there):  # nothing is sent twice
            os.utime(os.path.join(self.there, "manual", name), (1, 1))
        self.backup()
        times = [os.path.getmtime(p) for p in glob.glob(os.path.join(self.there, "manual", "*"))]
        self.assertEqual(times.count(1), 4)
        self.assertEqual(len(times), 6)

    def test_unless_told_otherwise(self):
        self.configure(f"{{path: {self.there}, backups: false}}")
        self.assertNotIn("sent", self.backup())
        self.configure(self.there)
        self.assertNotIn("sent", self.backup("--no-send"))
        self.assertFalse(os.path.exists(self.there))

    def test_of_that_database_alone(self):
        """What another database, or a person, put into the folder stays here."""
        other = self.open_db(self.path("private.db"))
        make_counter(other)
        self.configure(self.there)
        run = asof("backup", "--db-path", self.path("private.db"), "--archive", self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        shutil.copy(self.db_path, os.path.join(self.archive, "manual", "trades.db"))
        self.backup()
        self.assertTrue(all("private" not in n and n != "trades.db"
                            for n in self.names(self.there)))
        self.assertEqual(len(self.names(self.there)), 2)

    def test_conflict(self):
        """Another content under that name: told, not replaced, and the others go on."""
        self.configure()
        first = os.path.basename(self.backup()["backup_path"])
        os.makedirs(os.path.join(self.there, "manual"))
        theirs = os.path.join(self.there, "manual", first)
        with open(theirs, "wb") as f:
            f.write(b"of another machine")
        self.configure(self.there)
        run = self.asof("backup", "--json")
        self.assertEqual(run.returncode, 5)
        self.assertIn("with another content", run.stderr)
        answer = json.loads(run.stdout)
        self.assertTrue(answer["success"])
        self.assertEqual((answer["sent"][0]["there"], answer["sent"][0]["waiting"]), (1, 1))
        self.assertIn(os.path.basename(answer["backup_path"]), self.names(self.there))
        with open(theirs, "rb") as f:
            self.assertEqual(f.read(), b"of another machine")

    def test_manifests_of_one_second(self):
        """Two machines that send there: each manifest lies there, under a number of its own."""
        self.configure()
        self.backup()
        manifest, = (n for n in self.names(self.archive) if n.startswith("manifest"))
        os.makedirs(os.path.join(self.there, "manual"))
        with open(os.path.join(self.there, "manual", manifest), "wb") as f:
            f.write(b"{}")
        self.configure(self.there)
        run = self.asof("job", "send", self.there)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(manifest.replace(".json", "_2.json"), self.names(self.there))

    def test_damage_stays_here(self):
        self.configure()
        path = self.backup()["backup_path"]
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 1]))
        self.configure(self.there)
        run = self.asof("backup")
        self.assertEqual(run.returncode, 5)
        self.assertIn("is not the one in its manifest", run.stderr)
        self.assertNotIn(os.path.basename(path), self.names(self.there))
        self.assertEqual(len(self.names(self.there)), 2)

    def test_killed_between(self):
        """A backup without its manifest, and half a name, as a death leaves them: completed."""
        self.configure(self.there)
        self.backup()
        manifest, = (n for n in self.names(self.there) if n.startswith("manifest"))
        os.unlink(os.path.join(self.there, "manual", manifest))
        for state in glob.glob(os.path.join(self.archive, ".sent-*")):
            os.unlink(state)
        run = self.asof("job", "send", self.there)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assert_same(self.there)


class Retention(SendCase):
    """Ages are those of names and files: backups of ten days ago are made by renaming."""

    def setUp(self):
        super().setUp()
        self.there = self.path("there")
        self.began = time.time()  # not of each: a slow machine would give two of them one second

    def age(self, n, days):
        """Backup number n, made that long ago; its manifest with it."""
        answer = self.backup("--no-send")
        then = self.began - 86400 * days - n
        stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(then))
        folder, name = os.path.split(answer["backup_path"])
        aged = os.path.join(folder, f"trades_{stamp}.db.gz")
        os.rename(answer["backup_path"], aged)
        manifest = os.path.join(folder, f"manifest_{stamp}.json")
        with open(answer["manifest_path"], encoding="utf-8") as f:
            text = f.read().replace(name, os.path.basename(aged))
        os.unlink(answer["manifest_path"])
        with open(manifest, "w", encoding="utf-8") as f:
            f.write(text)
        for path in (aged, manifest):
            os.utime(path, (then, then))
        return os.path.basename(aged)

    def destination(self, rules):
        self.configure(f"{{path: {self.there}, backups: {{retention: {rules}}}}}",
                       more="backups:\n  retention: {manual: forever}\n")

    def send(self, grace_us="1"):
        run = self.asof("job", "send", self.there, grace_us)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stderr

    def state(self):
        path, = glob.glob(os.path.join(self.archive, ".sent-*"))
        with open(path, encoding="utf-8") as f:
            return json.load(f)

    def backups_there(self):
        return [n for n in self.names(self.there) if n.endswith(".db.gz")]

    def test_two_steps(self):
        """Noted, then deleted after the grace time, with the manifest; and not sent again."""
        self.configure(self.there, more="backups:\n  retention: {manual: forever}\n")
        old = [self.age(i, 10) for i in range(2)]
        new = self.age(2, 1)
        self.send()
        self.assertEqual(sorted(self.backups_there()), sorted(old + [new]))
        self.destination("{manual: 5d}")
        self.send("3600000000")
        self.assertEqual(len(self.backups_there()), 3)
        self.assertEqual(set(self.state()["doomed"]), {"manual/" + n for n in old})
        self.send("3600000000")  # not yet
        self.assertEqual(len(self.backups_there()), 3)
        self.send()
        self.assertEqual(self.backups_there(), [new])
        self.assertEqual(len(self.names(self.there)), 2)
        self.assertEqual(len(self.names(self.archive)), 6)  # here they are kept
        self.send()
        self.assertEqual(self.backups_there(), [new])
        self.assertEqual(self.state()["waiting"], 0)

    def test_what_comes_back_stays(self):
        self.configure(self.there, more="backups:\n  retention: {manual: forever}\n")
        old, new = self.age(0, 10), self.age(1, 1)
        self.send()
        self.destination("{manual: 5d}")
        self.send("3600000000")
        self.destination("{manual: 30d}")
        self.send()
        self.destination("{manual: 5d}")
        self.send("3600000000")
        self.assertEqual(sorted(self.backups_there()), sorted([old, new]))

    def test_the_last_good_one(self):
        """Whatever the rules say; what never came does not count."""
        self.destination("{manual: 5d}")
        old = [self.age(i, 10) for i in range(3)]
        for _ in range(3):
            self.send()
        self.assertEqual(self.backups_there(), [old[0]])
        new = self.age(5, 1)
        with open(os.path.join(self.archive, "manual", new), "r+b") as f:
            f.write(b"damaged")
        for _ in range(3):
            self.asof("job", "send", self.there, "1")
        self.assertEqual(self.backups_there(), [old[0]])

    def test_of_others(self):
        """What another database sent there, and what a person put there, is not ours to delete."""
        os.makedirs(os.path.join(self.there, "manual"))
        theirs = ["private_20200101_000000.db.gz", "trades.db.gz", "notes.txt",
                  "manifest_20200101_000000.json"]
        for name in theirs:
            with open(os.path.join(self.there, "manual", name), "w", encoding="ascii") as f:
                f.write("x")
        self.destination("{manual: 5d}")
        self.age(0, 1)
        for _ in range(3):
            self.send()
        self.assertLessEqual(set(theirs), set(self.names(self.there)))

    def test_cleanup_here_waits(self):
        """What a destination has not got yet stays here."""
        self.configure(self.there)
        old, new = self.age(0, 10), self.age(1, 1)
        run = self.asof("cleanup", "--dry-run", "--no-history")
        self.assertIn("'file' has not got it yet", run.stdout)
        self.assertIn("would remove 0 backups", run.stdout)
        self.assertEqual(self.asof("cleanup", "--no-history").returncode, 0)
        self.assertIn(old, self.names(self.archive))
        self.send()  # it would not be kept there either
        self.assertEqual(self.backups_there(), [new])
        self.assertEqual(self.asof("cleanup", "--no-history").returncode, 0)
        self.assertNotIn(old, self.names(self.archive))
        self.assertIn(new, self.names(self.archive))

    def test_no_deletion(self):
        """Credentials that may not delete: all else works, and it is said once."""
        if os.geteuid() == 0 and shutil.which("chattr") is None:
            self.skipTest("no chattr here")
        self.configure(self.there, more="backups:\n  retention: {manual: forever}\n")
        self.age(0, 10)
        self.age(1, 1)
        self.send()
        self.destination("{manual: 5d}")
        self.send("3600000000")
        folder = os.path.join(self.there, "manual")
        if subprocess.run(["chattr", "+a", folder], check=False, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("this filesystem has no append-only folders")
        self.addCleanup(subprocess.run, ["chattr", "-a", folder], check=False)
        self.assertIn("deletion is denied", self.send())
        self.assertNotIn("deletion is denied", self.send())
        self.assertEqual(len(self.backups_there()), 2)
        self.assertTrue(self.state()["no_delete"])
        subprocess.run(["chattr", "-a", folder], check=True)
        self.send()
        self.assertEqual(len(self.backups_there()), 1)

    def test_one_is_locked(self):
        """One that may not be deleted stays, the others go; it is said once, and tried again."""
        if os.geteuid() != 0 or shutil.which("chattr") is None:
            self.skipTest("nothing can be locked here")
        self.configure(self.there, more="backups:\n  retention: {manual: forever}\n")
        for i, days in enumerate((10, 9, 8, 1)):
            self.age(i, days)
        self.send()
        self.destination("{manual: 5d}")
        self.send("3600000000")
        folder = os.path.join(self.there, "manual")
        locked = sorted(f for f in os.listdir(folder) if not f.endswith(".json"))[1]
        path = os.path.join(folder, locked)
        if subprocess.run(["chattr", "+i", path], check=False, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("this filesystem has no files that cannot be changed")
        self.addCleanup(subprocess.run, ["chattr", "-i", path], check=False, stderr=subprocess.DEVNULL)
        said = self.send()
        self.assertIn("1 backups that no rule keeps could not be deleted", said)
        self.assertIn(locked, said)
        self.assertNotIn("could not be deleted", self.send())
        self.assertEqual(len(self.backups_there()), 2)
        self.assertEqual(self.state()["denied"], 1)
        subprocess.run(["chattr", "-i", path], check=True)
        self.send()
        self.assertEqual(len(self.backups_there()), 1)


class Server(SendCase):
    def setUp(self):
        super().setUp()
        self.server = sshd.Sshd(self.path("ssh")).start()
        self.addCleanup(self.server.stop)
        self.there = self.path("place")

    def test_by_the_daemon(self):
        """One that is made while asof run is up is sent by it, also after the server was away."""
        self.configure(self.server.url(self.there))
        self.run_daemon()
        answer = self.backup("--type", "automated")
        self.assertTrue(answer["sent"][0]["by_daemon"])
        wait_for("the backup there", lambda: len(self.names(self.there, "automated")) == 2, 60)
        self.assert_same(self.there, "automated")
        os.chmod(self.there, 0o700)
        away = self.there + ".away"
        os.rename(self.there, away)
        with open(self.there, "w", encoding="utf-8"):
            pass
        self.backup()
        wait_for("the failure", self.waiting, 60)
        for command in ("status", "stats"):
            run = self.asof(command)
            self.assertRegex(run.stdout, r"backups sent to sftp:.*\n.*waiting\n  failing since")
            sent, = json.loads(self.asof(command, "--json").stdout)["backups_sent"]
            self.assertEqual(sent["there"] + sent["waiting"], 2)
            self.assertIn("make folder", sent["error"])
        os.unlink(self.there)
        os.rename(away, self.there)
        wait_for("the other there", lambda: len(self.names(self.there)) == 2, 60)
        self.assert_same(self.there)

        def told():
            return "2 there, the newest of" in self.asof("stats").stdout
        wait_for("that to be told", told)

    def read_there(self, url, env=None):
        """list, validate and restore, from the URL alone, on a machine that has lost the rest."""
        for _ in range(3):
            commit(self.db)
        name = os.path.basename(self.backup("--label", "before")["backup_path"])
        self.db.close()
        os.unlink(self.db_path)
        shutil.rmtree(self.archive)

        def far(*args):
            return asof(*args, "--archive", url, env={**self.env, **(env or {})})
        rows = json.loads(far("list", "--json").stdout)["backups"]["manual"]
        self.assertEqual([(r["filename"], r["database"]) for r in rows], [(name, "trades")])
        run = far("list")
        self.assertIn(name, run.stdout)
        self.assertEqual(run.stderr, "")
        run = far("validate", "--backups")
        self.assertEqual((run.returncode, run.stderr), (0, ""), run.stdout)
        self.assertIn("1 backups, 1 valid", run.stdout)
        for which in (name, rows[0]["path"]):
            out = self.path("restored.db")
            run = far("restore", "--from", which, "-o", out, "--force")
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(counter_of(out), 3)
        self.assert_fails(far("restore", "--from", "other.db.gz", "-o", out, "--force"), 3, "no backup")
        self.assert_fails(far("cleanup"), 2, "by who sends there")
        return name, far

    def test_read_there(self):
        url = self.server.url(self.there)
        self.configure(f"'{url}'")
        scratch = self.path("scratch")
        os.mkdir(scratch)
        self.env = {"TMPDIR": scratch}
        name, far = self.read_there(url)
        path = os.path.join(self.there, "manual", name)
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 1]))
        run = far("validate", "--backups")
        self.assertEqual(run.returncode, 4, run.stdout)
        self.assertIn(f"DAMAGED  manual/{name}", run.stdout)
        self.assertEqual(far("restore", "--from", name, "-o", self.path("x.db")).returncode, 4)
        self.assertFalse(os.path.exists(self.path("x.db")))
        self.assertEqual(os.listdir(scratch), [])

    def test_read_there_encrypted(self):
        key, url = self.path("key"), self.server.url(self.there)
        self.assertEqual(asof("key", "generate", key).returncode, 0)
        self.configure(f"{{url: '{url}', key-file: {key}}}")
        self.read_there(url, {"ASOF_KEY_FILE": key})
        self.assertEqual(asof("list", "--archive", url).returncode, 1)

    def test_by_url_alone(self):
        """The key and the settings of a URL are those of its destination in ./asof.yml."""
        key, url = self.path("key"), self.server.url(self.there)
        self.assertEqual(asof("key", "generate", key).returncode, 0)
        self.configure(f"{{name: far, url: '{url}', key-file: {key}}}")
        self.run_daemon()
        commit(self.db)
        run = self.asof("wait", "--dest", "far", "--timeout", "60")
        self.assertEqual(run.returncode, 0, run.stderr)
        answer = self.backup()
        wait_for("the backup there", lambda: len(self.names(self.there)) == 2, 60)
        place, query = url.split("?")
        backup = f"{place}/manual/{os.path.basename(answer['backup_path'])}"
        out = self.path("restored.db")

        def alone(*args, known=True, **more):
            return subprocess.run([harness.ASOF, *args], cwd=self.dir if known else "/", text=True,
                                  env={**os.environ, **more}, timeout=100, check=False,
                                  stdin=subprocess.DEVNULL, capture_output=True)
        for known, more, status in ((False, {}, 1), (True, {}, 0), (False, {"ASOF_KEY_FILE": key}, 0)):
            run = alone("restore", "--from", backup if known else f"{backup}?{query}", "-o", out, "--force",
                        known=known, **more)
            self.assertEqual(run.returncode, status, run.stderr)
        self.assertEqual(counter_of(out), 1)
        self.assertEqual(alone("key", "list", "--archive", url, known=False).returncode, 2)
        public = asof("key", "show", key).stdout.strip()
        other = self.path("other")
        self.assertEqual(asof("key", "generate", other).returncode, 0)
        for more in {}, {"ASOF_KEY_FILE": other}:
            run = alone("key", "list", "--archive", url, **more)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn(public, run.stdout)
        self.assert_fails(alone("key", "list", "--archive", url, "--key-file", other), 1, "is not for")
        self.assert_fails(alone("restore", "--from", "sftp://host/x.db.gz", "-o", out, "--force"), 3,
                          "ARCHIVE/manual/NAME")
        # A machine that has lost the archive, and not its configuration.
        run = self.asof("drop", "trades.db")
        shutil.rmtree(self.archive)
        run = alone("restore", "--from", backup, "-o", out, "--force")
        self.assertEqual(run.returncode, 0, run.stderr)

    def waiting(self):
        for path in glob.glob(os.path.join(self.archive, ".sent-*")):
            with open(path, encoding="utf-8") as f:
                known = json.load(f)
            if known["waiting"] and known["trouble"]:
                return known
        return None

    def test_encrypted(self):
        """Nothing lies in the clear in an encrypted archive; without a key it is refused."""
        key = self.path("key")
        self.assertEqual(asof("key", "generate", key).returncode, 0)
        url = self.server.url(self.there)
        self.configure(f"{{url: '{url}', key-file: {key}}}")
        self.backup()
        backup = glob.glob(os.path.join(self.there, KEY))[0]
        with open(backup, "rb") as f:
            self.assertEqual(f.read(8), b"asofenc1")
        n = len(self.names(self.there))
        self.configure(f"'{url}'")
        run = self.asof("backup")
        self.assertEqual(run.returncode, 5)
        self.assertIn("is encrypted", run.stderr)
        self.assertEqual(len(self.names(self.there)), n)


class Bucket(SendCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="asof-send-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.server = radosgw.RadosGateway(folder)
        cls.addClassCleanup(cls.server.stop)
        cls.server.start()
        cls.server.make_bucket("your-bucket")

    def setUp(self):
        super().setUp()
        self.env = {**self.server.credentials(), "AWS_REGION": "us-east-1",
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.port}"}
        for key in self.server.keys("your-bucket"):
            self.server.request("DELETE", "/your-bucket/" + key)

    def test_recovery(self):
        """BACKUP_S3_BUCKET alone; then a new machine with a copy of the bucket, gunzip and sqlite3."""
        self.configure()
        with open(self.path(".env.backup"), "w", encoding="ascii") as f:
            f.write("BACKUP_S3_BUCKET=your-bucket\n")
        for _ in range(5):
            commit(self.db)
        answer = self.backup()
        self.assertIsNone(answer["sent"][0]["error"])
        self.backup("--type", "automated")
        self.assertEqual({k.rsplit("/", 1)[0] for k in self.server.keys("your-bucket")},
                         {"db/manual", "db/automated"})
        self.db.close()
        os.unlink(self.db_path)
        shutil.rmtree(self.archive)
        restored = self.path("restored-data")
        self.server.sync("your-bucket", "db/", restored)
        backup, = glob.glob(os.path.join(restored, KEY))
        subprocess.run(["gunzip", backup], check=True)
        self.assertEqual(counter_of(backup[:-3]), 5)
        manifest, = glob.glob(os.path.join(restored, "manual", "manifest_*.json"))
        with open(manifest, encoding="utf-8") as f:
            self.assertEqual(os.path.basename(json.load(f)["backup_file"]),
                             os.path.basename(backup))

    def test_read_there(self):
        url = self.server.url("your-bucket", "/far")
        self.configure(f"'{url}'")
        Server.read_there(self, url)

    def test_daemon_and_outage(self):
        """A destination of type s3; the server goes away, and comes back."""
        self.configure(f"{{type: s3, bucket: your-bucket, path: asof, endpoint: "
                       f"'http://127.0.0.1:{self.server.port}'}}")
        self.run_daemon()
        self.backup("--type", "automated")

        def there(kind):
            return len(self.server.keys("your-bucket", f"asof/{kind}/")) == 2
        wait_for("the backup there", lambda: there("automated"), 60)
        self.server.stop_gateway()
        try:
            self.backup()
        finally:
            self.server.start_gateway()
        wait_for("the other there", lambda: there("manual"), 100)


if __name__ == "__main__":
    harness.main()
