#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Archives on a server that speaks SFTP: a real one, on loopback."""
# runner: timeout=300 asan

import getpass
import os
import select
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import sshd  # noqa: E402
from harness import asof, commit, counter_of, make_counter, wait_for  # noqa: E402

BUILD = os.environ.get("ASOF_BUILD") or os.path.join(harness.ROOT, "build", "release")
TEST_STORE = os.path.join(BUILD, "tests", "test_store")
TOOL = os.path.join(BUILD, "tests", "synth", "store_tool")


class Silence(harness.Case):
    def lines_of(self, url, env):
        """What the first seconds of a command say whose patience lasts for thirty."""
        p = subprocess.Popen([harness.ASOF, "list", "--archive", url], env={**os.environ, **env}, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        begin = time.monotonic()
        ready, _, _ = select.select([p.stderr], [], [], 20)
        took_s = time.monotonic() - begin
        time.sleep(2 if ready else 0)  # further tries say nothing
        ended = p.poll() is not None
        p.kill()
        with p.stderr:
            lines = p.stderr.read().splitlines()
        p.wait()
        self.assertFalse(ended, lines)
        self.assertLess(took_s, 20, url)
        return lines

    def test_a_port_where_nobody_is(self):
        """It is told at once, and not after all tries; a bucket and a server in the same words."""
        port = sshd.free_port()
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for url, label in ((f"sftp://u@127.0.0.1:{port}/x", f"sftp://u@127.0.0.1:{port}/x"),
                           (f"s3://abc?endpoint=http://127.0.0.1:{port}&region=r", "s3://abc")):
            line, = self.lines_of(url, keys)
            self.assertIn(f" warn store no answer yet, trying again for up to 30 s store={label}", line)


class Sftp(harness.Case):
    def setUp(self):
        super().setUp()
        self.server = sshd.Sshd(self.path("ssh")).start()
        self.addCleanup(self.server.stop)
        self.place = self.path("place")

    def tool(self, *words, url=None, timeout=60):
        return subprocess.run([TOOL, url or self.server.url(self.place), *words], timeout=timeout,
                              check=False, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)

    def test_promises(self):
        """The numbered promises of store.h, held to a model."""
        run = subprocess.run([TEST_STORE], check=False, timeout=240, text=True,
                             env={**os.environ, "ASOF_TEST_STORE": self.server.url(self.place)},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertIn("[       OK ] test_named", run.stdout)

    def test_tried_out(self):
        """asof check, of a place that can be written, of one that cannot, of a folder."""
        os.mkdir(self.place)
        for url in (self.server.url(self.place), self.place):
            place, = harness.asof_json("check", url)["places"]
            self.assertEqual([r["state"] for r in place["trial"]], 6 * ["ok"], place)
            self.assertEqual(os.listdir(self.place), [])
        with open(self.path("file"), "w", encoding="ascii"):
            pass
        run = harness.asof("check", self.server.url(self.path("file/below")))
        self.assertEqual((run.returncode, run.stderr),
                         (1, "asof: check: 1 problem (see above)\n"))
        self.assertIn("PROBLEM: cannot be written", run.stdout)

    def test_sessions_that_are_cut(self):
        """Objects put while every session is ended again and again: each whole, none twice."""
        done = threading.Event()

        def cut():
            while not done.is_set():
                time.sleep(0.25)
                self.server.cut()
        thread = threading.Thread(target=cut)
        thread.start()
        try:
            run = self.tool("fill", "60", "300000", timeout=200)
        finally:
            done.set()
            thread.join()
        self.assertEqual(run.returncode, 0, run.stderr)
        run = self.tool("check", "60", "300000")
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_replacing_dies_anywhere(self):
        """kill -9 of one that puts an object again and again: a reader finds one, whole, always."""
        self.assertEqual(self.tool("fill", "1", "200000").returncode, 0)
        for i in range(12):
            p = subprocess.Popen([TOOL, self.server.url(self.place), "again", "200000"])
            time.sleep(0.4 + 0.037 * i)
            p.send_signal(signal.SIGKILL)
            p.wait()
            run = self.tool("whole", "200000")
            self.assertEqual(run.returncode, 0, run.stderr)

    def test_refusals(self):
        for url, status, text in (
                (self.server.url(self.place, key="stranger"), "denied", "does not take the key"),
                (self.server.url(self.place, key="none"), "not-found", "none"),
                (f"sftp://u:secretword@127.0.0.1{self.place}", "usage", "no password"),
                (f"sftp://127.0.0.1:{self.server.port}/", "usage", "names no host, or no folder"),
                (self.server.url(self.place) + "&x=y", "usage", "'x=y' is no parameter")):
            run = self.tool("fill", "1", "10", url=url)
            self.assertEqual(run.returncode, 1, url)
            self.assertIn(text, run.stderr)
            self.assertIn(f"({status})", run.stderr)
            self.assertNotIn("secretword", run.stderr)
        self.server.know("stranger")
        run = self.tool("fill", "1", "10")
        self.assertIn("another host key", run.stderr)
        os.truncate(self.server.path("known"), 0)
        run = self.tool("fill", "1", "10")
        self.assertIn("is not known", run.stderr)

    def test_nobody_there(self):
        self.server.stop()
        began = time.monotonic()
        run = self.tool("fill", "1", "10", url=self.server.url(self.place), timeout=60)
        self.assertEqual(run.returncode, 1)
        self.assertIn("(unavailable)", run.stderr)
        self.assertLess(time.monotonic() - began, 40)

    def test_an_encrypted_destination(self):
        """asof run keeps a copy there; a new machine that has the identity alone restores it."""
        db = self.open_db(synchronous="OFF")
        make_counter(db)
        key, config = self.path("identity"), self.path("asof.yml")
        self.assertEqual(asof("key", "generate", key).returncode, 0)
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"archive: {self.archive}\nsocket: {self.path('sock')}\nhttp: {{listen: none}}\n"
                    f"dbs:\n- path: {self.db_path}\n  destinations:\n"
                    f"  - type: sftp\n    host: 127.0.0.1:{self.server.port}\n"
                    f"    user: {getpass.getuser()}\n    path: {self.place}\n"
                    f"    key-path: {self.server.path('user')}\n"
                    f"    host-key: {self.server.text('host.pub')}\n    key-file: {key}\n")
        daemon = subprocess.Popen([harness.ASOF, "run", "--config", config],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE)
        self.addCleanup(daemon.stderr.close)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        out, env = self.path("out.db"), {**os.environ, "ASOF_KEY_FILE": key}
        words = ("--archive", self.server.url(self.place), "--db", "trades.db")

        def restored():
            run = asof("restore", "--latest", "-o", out, "--force", *words, env=env)
            return counter_of(out) if run.returncode == 0 else run.stderr
        for n in (1, 2, 3):
            for _ in range(5):
                commit(db)
            wait_for(f"commit {5 * n} there", lambda n=n: restored() == 5 * n)
        # Without the identity nothing of it can be had, and nothing is taken for damage.
        self.assert_fails(asof("restore", "--latest", "-o", out, "--force", *words), 1,
                          "is encrypted")
        daemon.terminate()
        self.assertEqual(daemon.wait(30), 0)
        self.assertEqual(restored(), 15)


if __name__ == "__main__":
    unittest.main()
