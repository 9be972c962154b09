#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400 asan
"""Orders to a running asof run: pause, resume, add, drop, sync, wait, and those who ask wrongly."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
from daemon import Case, Daemon  # noqa: E402
from harness import ASOF, asof, commit, wait_for  # noqa: E402


class Orders(Case):
    def setUp(self):
        super().setUp()
        self.db = self.make("a.db")
        self.configure(dbs=[f"path: {self.data('a.db')}"])

    def order(self, *words, status=0):
        run = asof(*words, "--config", self.config)
        self.assertEqual(run.returncode, status, run.stderr)
        return run

    def test_pause_and_resume(self):
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
            self.db.execute("PRAGMA journal_mode = DELETE")
        self.order("pause", "a.db")
        self.assertEqual(daemon.databases()["a.db"]["state"], "paused")
        # Let go: the application can have the file to itself.
        self.db.execute("PRAGMA journal_mode = DELETE")
        self.db.execute("PRAGMA journal_mode = WAL")
        commit(self.db)
        self.order("resume", "a.db")
        daemon.wait_replicating("a.db")
        self.order("sync", "--wait", "a.db")
        self.assertEqual(self.restored_counter("a.db"), 1)

    def test_add_and_drop(self):
        daemon = Daemon(self)
        other = self.make("b.db")
        self.order("add", self.data("b.db"))
        daemon.wait_replicating("b.db")
        self.order("add", self.data("b.db"), status=1)
        commit(other)
        self.order("sync", "--wait")
        self.assertEqual(self.restored_counter("b.db"), 1)
        self.order("drop", "b.db")
        wait_for("b.db to go", lambda: "b.db" not in daemon.databases())
        self.order("drop", "a.db")
        self.assertEqual(daemon.databases()["a.db"]["state"], "ended")
        daemon.reload()
        daemon.wait_replicating("a.db")

    def test_added_again_it_runs(self):
        """Whatever it was when it was dropped."""
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        self.order("pause", "a.db")
        self.order("drop", "a.db")
        self.assertNotIn("a.db", self.order("pause", "a.db", status=3).stderr.split("(")[1])
        wait_for("a.db to stop", lambda: daemon.databases()["a.db"]["state"] == "ended")
        self.order("add", self.data("a.db"))
        daemon.wait_replicating("a.db")

    def test_by_path(self):
        """Relative, and through links."""
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        os.symlink(self.data("a.db"), self.path("link.db"))
        for path in (self.data("a.db"), os.path.relpath(self.data("a.db")), self.path("link.db")):
            self.order("pause", path)
            self.assertEqual(daemon.databases()["a.db"]["state"], "paused")
            self.order("resume", path)
            daemon.wait_replicating("a.db")
            self.order("sync", "--wait", path)
        self.order("drop", os.path.relpath(self.data("a.db")))
        self.assertIn("none", self.order("pause", "./a.db", status=3).stderr)

    def test_the_archive_that_all_have(self):
        """As where a litestream.yml has a replica for each database."""
        replica = {"type": "file", "path": self.path("other", "local", "a")}
        with open(self.config, "w") as f:
            f.write(f"dbs:\n  - path: {self.data('a.db')}\n    replicas: [{json.dumps(replica)}]\n")
        self.socket = self.path("other", "control.sock")
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        self.make("b.db")
        self.order("add", self.data("b.db"))
        daemon.wait_replicating("b.db")
        self.assertEqual(daemon.databases()["b.db"]["archive"], self.path("other"))

    def test_sync_does_not_speak_for_what_is_left_out(self):
        self.configure(dbs=[f"path: {self.data(n)}" for n in ("a.db", "b.db", "none.db")])
        other = self.make("b.db")
        daemon = Daemon(self)
        daemon.wait_replicating("a.db", "b.db")
        self.order("sync", "--wait")  # what does not exist has committed nothing
        self.order("pause", "b.db")
        commit(other)
        self.assertIn("'b.db' is not being replicated (paused",
                      self.order("sync", "--wait", status=1).stderr)
        self.order("sync", "--wait", "a.db")
        self.order("resume", "b.db")
        self.order("sync", "--wait")
        self.assertEqual(self.restored_counter("b.db"), 1)

    def test_one_that_hangs(self):
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        os.kill(daemon.process.pid, signal.SIGSTOP)
        try:
            run = self.order("sync", "--wait", "--timeout", "0", status=1)
        finally:
            os.kill(daemon.process.pid, signal.SIGCONT)
        self.assertIn("no answer in time", run.stderr)

    def test_sync_waits_for_what_is_committed(self):
        """After `asof sync --wait` a restore has every commit of before, at once."""
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        for i in range(1, 30):
            commit(self.db)
            reply = daemon.ask(command="sync", database="a.db", wait=True)
            self.assertTrue(reply["ok"], reply)
            if i % 10 == 0:
                self.assertEqual(self.restored_counter("a.db"), i)

    def test_wait(self):
        """It asks the archive: what was committed before is there on return."""
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        for n in range(1, 4):
            commit(self.db)
            self.order("wait", "a.db", "--timeout", "20")
            self.assertEqual(self.restored_counter("a.db"), n)
        last = daemon.databases()["a.db"]["last_txid"]
        self.order("wait", "a.db", "--txid", str(last))
        run = self.order("wait", "a.db", "--txid", str(last + 1), "--timeout", "1", status=1)
        self.assertIn(f"transaction {last}", run.stderr)
        self.assertEqual(daemon.stop(), 0)
        self.assertIn("not being replicated", self.order("wait", "a.db", status=1).stderr)

    def test_status_asks_the_daemon(self):
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")

        def status():
            return harness.asof_json("status", "--config", self.config)
        answer = status()
        self.assertEqual(answer["daemon"]["pid"], daemon.process.pid)
        self.assertEqual(answer["databases"][0]["state"], "replicating")
        self.order("pause", "a.db")
        wait_for("pause", lambda: status()["databases"][0]["state"] == "paused")
        self.assertIn("asof run: paused", self.order("status").stdout)
        self.assertEqual(daemon.stop(), 0)
        answer = status()
        self.assertIsNone(answer["daemon"])
        self.assertIsNone(answer["databases"][0]["state"])

    def test_status_names_what_is_not_captured_yet(self):
        """One that waits for its file, or for WAL mode, is protected by nothing: it is told."""
        later = sqlite3.connect(self.data("rollback.db"))
        later.execute("CREATE TABLE t(a)")
        later.close()
        self.configure(dbs=[f"path: {self.data(n)}" for n in ("a.db", "later.db", "rollback.db")])
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        wait_for("the states", lambda: all(
            daemon.databases()[n]["state"] == "waiting" for n in ("later.db", "rollback.db")))
        answer = harness.asof_json("status", "--config", self.config)
        self.assertEqual([row["database"] for row in answer["databases"]], ["a.db"])
        pending = {row["database"]: row for row in answer["pending"]}
        self.assertEqual(set(pending), {"later.db", "rollback.db"})
        self.assertEqual(pending["later.db"]["source"], self.data("later.db"))
        self.assertIn("No such file", pending["later.db"]["reason"])
        text = self.order("status").stdout
        self.assertIn("rollback-journal mode", text)
        self.assertIn(self.data("later.db"), text)

    def test_resumed_without_a_place_in_the_wal(self):
        """Of an idle database there was none: a gap, for its true reason."""
        self.db.close()
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        self.order("pause", "a.db")
        wait_for("pause", lambda: daemon.databases()["a.db"]["state"] == "paused")
        self.order("resume", "a.db")
        wait_for("the gap", lambda: daemon.has("gap declared"))
        line = next(s for s in daemon.log().splitlines() if "gap declared" in s)
        self.assertNotIn("nothing was captured", line)
        self.assertIn("how far the WAL had been captured is not known", line)

    def test_answers_whatever_bytes_come(self):
        """A reason is cut to fit, within a character if need be: the answer still comes."""
        daemon = Daemon(self)
        reply = daemon.ask(command="x" * 39 + "é")
        self.assertFalse(reply["ok"])
        self.assertIn("unknown command", reply["error"])
        self.order("add", self.data("z" + "é" * 100 + ".db"), "--name", "z.db")
        self.order("add", self.data("zz" + "é" * 100 + ".db"), "--name", "yy.db")
        wait_for("both", lambda: {"z.db", "yy.db"} <= set(daemon.databases()))
        wait_for("the reasons", lambda: all(
            daemon.databases()[n]["reason"].startswith("database '") for n in ("z.db", "yy.db")))

    def test_a_path_that_is_no_utf8(self):
        """Its bytes cost no program the answer."""
        folder = os.fsencode(self.dir) + b"/d\xff"
        os.mkdir(folder)
        path = folder + b"/n.db"
        db = sqlite3.connect(path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t(a)")
        db.commit()
        archive = self.data("bytes")
        process = subprocess.Popen([ASOF, "replicate", "-q", path, archive])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def rows():
            run = asof("status", "--archive", archive, "--json")
            return run.returncode == 0 and json.loads(run.stdout)["databases"]
        wait_for("a row", lambda: (rows() or [{}])[0].get("last_txid"))
        self.assertIn("d?/n.db", rows()[0]["source"])
        process.terminate()
        process.wait()
        db.close()
        run = asof("restore", "--archive", archive, "--latest", "-o", os.fsdecode(path),
                   "--force", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("d?/n.db", json.loads(run.stdout)["target"])

    def test_mistakes(self):
        Daemon(self)
        run = self.order("add", self.data("b.db"), "--name", "../../b", status=2)
        self.assertIn("'/'", run.stderr)
        self.assertIn("a.db", self.order("pause", "nope.db", status=3).stderr)
        self.assertIn("nope.db", self.order("sync", "--wait", "nope.db", status=3).stderr)
        self.order("pause", status=2)

    def test_no_daemon(self):
        for words in (["pause", "a.db"], ["sync", "--wait"], ["reload"]):
            self.assertIn("no running asof", self.order(*words, status=3).stderr)

    def test_hostile_clients(self):
        """Rubbish, endless lines, silence, readers that do not read, too many of them: capture goes
        on, and the next good client is served."""
        daemon = Daemon(self)
        daemon.wait_replicating("a.db")
        mode = os.stat(self.socket).st_mode
        self.assertEqual(mode & 0o777, 0o600)

        def connect():
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(20)
            s.connect(self.socket)
            self.addCleanup(s.close)
            return s

        for rubbish in (b"\n", b"{}\n", b"[1]\n", b"\0\xff\n", b'{"command": 1}\n',
                        b'{"command": "sync", "timeout_s": -1}\n', b'{"command": "add"}\n',
                        b'{"command": "status", "command": "status"}\n'):
            s = connect()
            s.sendall(rubbish)
            self.assertFalse(json.loads(s.makefile("rb").readline())["ok"], rubbish)
            s.close()
        s = connect()
        with self.assertRaises(OSError):
            for _ in range(1000):
                s.sendall(b"x" * 65536)
        s.close()
        deaf = connect()  # asks and never reads
        deaf.setblocking(False)
        try:
            while True:
                deaf.send(b'{"command": "status"}\n' * 100)
        except OSError:
            pass
        silent = [connect() for _ in range(15)]
        commit(self.db)
        end = time.monotonic() + harness.PATIENCE
        while True:  # one place is left, or becomes free
            extra, line = connect(), b""
            try:
                extra.sendall(b'{"command": "sync", "wait": true}\n')
                line = extra.makefile("rb").readline()
            except OSError:
                pass  # refused already
            extra.close()
            if line and json.loads(line)["ok"]:
                break
            self.assertLess(time.monotonic(), end)
            if silent:
                silent.pop().close()
            time.sleep(0.05)  # a place that was left is seen to be free a moment later
        self.assertEqual(self.restored_counter("a.db"), 1)
        self.assertEqual(daemon.stop(), 0)
        self.assertFalse(os.path.exists(self.socket))


if __name__ == "__main__":
    harness.main()
