#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one `asof run` costs that has nothing to do: memory and processor, for 1, 100 and 1,000 databases.

    tools/bench/many.py [--asof PROGRAM] [--seconds 30] [--settle 75] [--json] [N]...

Each database has a table, a hundred commits, and an application that holds it open; nobody writes while
it is measured, --settle seconds after all are replicated (page tables are made durable 30 s after).
RssAnon is that of /proc/PID/status, the processor's time that of the process's clock, without children.
Targets (design, P7): at most 6, 20 and 60 MB; at most 0.1, 0.5 and 2 % of one core.  Exit status 1 when
one is missed.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

TARGETS = {1: (6.0, 0.1), 100: (20.0, 0.5), 1000: (60.0, 2.0)}


def make_databases(folder, n):
    held = []
    for i in range(n):
        db = sqlite3.connect(os.path.join(folder, f"app{i:04}.db"), isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
        for _ in range(100):
            db.execute("INSERT INTO rows (text) VALUES (hex(randomblob(40)))")
        held.append(db)
    return held


def cpu_seconds(pid):
    """Of all its threads, also of those that have ended: the process's own clock."""
    return time.clock_gettime((~pid << 3) | 2)


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        lines = dict(line.split(":", 1) for line in f)
    return int(lines["RssAnon"].split()[0]) * 1024, int(lines["Threads"])


def anonymous_bytes(pid):
    """Exact, where the counters of status are allowed to lag behind."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) * 1024 for line in f if line.startswith("Anonymous:"))


def ask(folder, order):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(folder, "archive", "control.sock"))
        s.sendall(json.dumps(order).encode() + b"\n")
        return json.loads(s.makefile("rb").readline())


def wait_until_replicated(folder, daemon, n, patience=300):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if daemon.poll() is not None:
            raise SystemExit("asof run ended: " + open(folder + "/log", encoding="utf-8").read())
        try:
            rows = ask(folder, {"command": "status"})["databases"]
        except (FileNotFoundError, ConnectionRefusedError):
            rows = []
        if sum(row["state"] == "replicating" and row["settled"] for row in rows) == n:
            return
        time.sleep(0.2)
    raise SystemExit(f"{n} databases were not all replicated within {patience} s")


def measure(program, n, settle, seconds):
    folder = tempfile.mkdtemp(prefix="asof-many-")
    data = os.path.join(folder, "data")
    os.mkdir(data)
    config = os.path.join(folder, "asof.yml")
    with open(config, "w", encoding="ascii") as f:
        f.write(f"archive: {folder}/archive\ndbs:\n  - dir: {data}\n    pattern: '*.db'\n"
                "    watch: true\n")
    held = make_databases(data, n)
    log = open(os.path.join(folder, "log"), "wb")
    daemon = subprocess.Popen([program, "run", "--config", config, "--quiet"], stdout=log, stderr=log)
    try:
        began = time.monotonic()
        wait_until_replicated(folder, daemon, n)
        ready = time.monotonic() - began
        time.sleep(settle)
        before, at = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(seconds)
        cpu = (cpu_seconds(daemon.pid) - before) / (time.monotonic() - at)
        rss, threads = status_of(daemon.pid)
        exact = anonymous_bytes(daemon.pid)
        fds = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        return {"databases": n, "rss_anon_mb": round(rss / 1e6, 2),
                "anonymous_mb": round(exact / 1e6, 2), "cpu_percent": round(cpu * 100, 3),
                "threads": threads, "descriptors": fds, "ready_s": round(ready, 1)}
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        for db in held:
            db.close()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--asof", default="asof")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--settle", type=float, default=75)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("n", nargs="*", type=int, default=[1, 100, 1000])
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows, missed = [], False
    for n in options.n:
        row = measure(options.asof, n, options.settle, options.seconds)
        rows.append(row)
        memory, cpu = TARGETS.get(n, (float("inf"), float("inf")))
        bad = max(row["rss_anon_mb"], row["anonymous_mb"]) > memory or row["cpu_percent"] > cpu
        missed = missed or bad
        if not options.json:
            print(f"{n:5} databases: {row['rss_anon_mb']:6.2f} MB RssAnon ({row['anonymous_mb']:.2f} exact, "
                  f"target {memory}), {row['cpu_percent']:6.3f} % of a core (target {cpu}), "
                  f"{row['threads']} threads, {row['descriptors']} descriptors, all replicated after "
                  f"{row['ready_s']} s{'   MISSED' if bad else ''}", flush=True)
    if options.json:
        print(json.dumps(rows))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
