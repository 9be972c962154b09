# SPDX-License-Identifier: Apache-2.0
"""A running `asof run` that serves HTTP, and its observer."""

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile

import harness


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.unix_path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


def free_port():
    """Of loopback; nobody else asks for one in the moment until it is listened on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def disk_that_stops(name):
    """Environment of a daemon whose fsync does not return while that file exists."""
    build = os.environ.get("ASOF_BUILD") or os.path.dirname(os.path.dirname(harness.ASOF))
    # Whoever comes before the sanitizer's own is complained of.
    options = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    return {"LD_PRELOAD": os.path.join(build, "tests", "soak", "stop_io.so"), "STOP_IO": name,
            "ASAN_OPTIONS": options}


class Daemon:
    """`asof run` with HTTP at a Unix socket, unless the configuration names another address."""

    def __init__(self, case, text, listen=None, env=None):
        self.case = case
        self.listen = listen or "unix:" + case.path("http.sock")
        self.config = case.path("asof.yml")
        self.write_config(text)
        fd, self.log_path = tempfile.mkstemp(prefix="run-", suffix=".log")
        with os.fdopen(fd, "w") as log:
            env = {**os.environ, "ASOF_HTTP": self.listen, **(env or {})}
            env.pop("RUNTIME_DIRECTORY", None)
            self.process = subprocess.Popen(
                [harness.ASOF, "run", "--config", self.config], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=env)
        case.addCleanup(self.close)

    def write_config(self, text):
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(text)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def connection(self, timeout=30):
        if self.listen.startswith("unix:"):
            return UnixConnection(self.listen[5:], timeout)
        host, port = self.listen.rsplit(":", 1)
        return http.client.HTTPConnection(host or "127.0.0.1", int(port), timeout=timeout)

    def ask(self, path, method="GET", timeout=30, headers=None, body=None):
        c = self.connection(timeout)
        try:
            c.request(method, path, body=body, headers=headers or {})
            return Answer(c.getresponse())
        finally:
            c.close()

    def try_ask(self, path, **kw):
        """None while nobody answers."""
        try:
            return self.ask(path, **kw)
        except (OSError, http.client.HTTPException):
            return None

    def wait_listening(self):
        return harness.wait_for("HTTP", lambda: self.try_ask("/health"))

    def wait_health(self, healthy=True, patience=harness.PATIENCE):
        """The first answer of /health that says so."""
        def right():
            a = self.try_ask("/health")
            return a if a and a.json["healthy"] == healthy else None
        try:
            return harness.wait_for(f"healthy: {healthy}", right, patience).json
        except AssertionError as e:
            a = self.try_ask("/health")
            raise AssertionError(f"{e}: {a.text if a else 'no answer'}\n{self.log()}") from None

    def wait_check(self, subject, codes, name=None, patience=2 * harness.PATIENCE):
        """The line of /health about something, once it is one of those codes: what is told first,
        on a slow machine, is not always what is waited for."""
        def right():
            a = self.try_ask("/health")
            return next((line for line in (a.json["checks"] if a else ())
                         if line["subject"] == subject and name in (None, line["name"]) and
                         line["code"] in codes), None)
        try:
            return harness.wait_for(f"{subject} {name or ''}: {codes}", right, patience)
        except AssertionError as e:
            a = self.try_ask("/health")
            raise AssertionError(f"{e}: {a.text if a else 'no answer'}\n{self.log()}") from None

    def observer_pid(self):
        """Of the child that serves HTTP, or None."""
        out = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid=,args="],
                             stdout=subprocess.PIPE, text=True, check=False).stdout
        for line in out.splitlines():
            pid, args = line.split(None, 1)
            if " job observe " in args:
                return int(pid)
        return None

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(harness.PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        os.unlink(self.log_path)


def check_of(health, subject, name=None):
    """The line of /health about something."""
    for line in health["checks"]:
        if line["subject"] == subject and name in (None, line["name"]):
            return line
    raise AssertionError(f"nothing about {subject} {name}: {health}")
