# SPDX-License-Identifier: Apache-2.0
"""`asof run` under a test: a configuration, the daemon that has it, what it logged and answers."""

import json
import os
import signal
import socket
import subprocess
import tempfile

import harness
from harness import ASOF, asof, counter_of, make_counter, wait_for


class Daemon:
    """A running `asof run`."""

    def __init__(self, case, *options, env=None, wait=True):
        self.case = case
        fd, self.log_path = tempfile.mkstemp(prefix="run-", suffix=".log")
        whole_env = {k: v for k, v in os.environ.items() if k != "ASOF_ARCHIVE"}
        whole_env.update(env or {})
        with os.fdopen(fd, "w") as log:
            self.process = subprocess.Popen(
                [ASOF, "run", "--config", case.config, *options], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=whole_env, cwd=case.dir)
        case.addCleanup(self.close)
        if wait:
            wait_for("the daemon to be ready", lambda: self.has("info run ready"))

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def has(self, text, times=1):
        if self.process.poll() is not None and text not in self.log():
            raise AssertionError(f"the daemon ended ({self.process.returncode}): " + self.log())
        return self.log().count(text) >= times

    def alive(self):
        return self.process.poll() is None

    def stop(self, sig=signal.SIGTERM):
        if self.alive():
            self.process.send_signal(sig)
        return self.process.wait(harness.PATIENCE)

    def close(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        os.unlink(self.log_path)

    def reload(self):
        n = self.log().count("info run configuration loaded")
        self.process.send_signal(signal.SIGHUP)
        wait_for("the configuration", lambda: self.has("info run configuration loaded", n + 1))

    def ask(self, **order):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(self.case.socket)
            s.sendall(json.dumps(order).encode() + b"\n")
            return json.loads(s.makefile("rb").readline())

    def databases(self):
        return {row["database"]: row for row in self.ask(command="status")["databases"]}

    def wait_replicating(self, *names):
        def done():
            rows = self.databases()
            return all(rows.get(n, {}).get("state") == "replicating" and rows[n]["settled"]
                       for n in names)
        wait_for(f"{names} to be replicated", done)

    def sync(self, *args):
        run = asof("sync", "--wait", "--socket", self.case.socket, *args)
        if run.returncode:
            raise AssertionError(run.stderr + self.log())


class Case(harness.Case):
    def setUp(self):
        super().setUp()
        self.config = self.path("asof.yml")
        self.socket = self.path("archive", "control.sock")
        os.mkdir(self.path("data"))

    def configure(self, *lines, dbs=(), archive=True):
        with open(self.config, "w", encoding="utf-8") as f:
            if archive:
                f.write(f"archive: {self.archive}\n")
            f.write("dbs:\n" if dbs else "")
            for entry in dbs:
                f.write(f"  - {entry}\n")
            f.write("".join(line + "\n" for line in lines))

    def data(self, name):
        return self.path("data", name)

    def make(self, name):
        db = self.open_db(self.data(name))
        make_counter(db)
        return db

    def restored_counter(self, name):
        out = self.path("restored-" + name)
        run = asof("restore", "--latest", "--db", name, "-o", out, "--force", "--archive",
                   self.archive)
        self.assertEqual(run.returncode, 0, run.stderr)
        return counter_of(out)
