#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an archive in a bucket costs: requests, bytes and time, against a real S3 server on loopback.

    tools/bench/far.py [--build DIR] [--scale 0.3] [--outage 20] [--idle 60] [--json] [--relay]
                       [--latency-ms 30] [--mbit 400] [--only restore,p9,outage] [--out DIR]

All of it directly; restore also from a distance: --latency-ms for each request, answers at --mbit together
(0 and 0: as it is).  As root the server has a network of its own, and the kernel bounds the rate of the link
to it; else, or with --relay, a relay does (tests/lib/distance.py).  What is restored goes below --out
(/dev/shm: without a disk).

P9: one point query through a mount of the bucket, everything cold, at most two objects over the base: GETs
and bytes, the listing counted apart (targets of the design: 8 GETs, 1 MB).  Restore: the whole database
from the bucket, beside parallel GETs of the same objects by the same number of connections (target: at
least 0.8 of their rate; the seconds of processor that asof and the server take are told beside it, since both
share the machine: without a distance they alone are the bound, as the same restore from the local archive
shows).  Catch-up: the bucket goes away for --outage seconds of writing at a fixed rate and comes back; how many times that rate it is caught up at (target: 5).  Idle: requests of a running replicator
in --idle seconds without a commit (target: none).  --scale: times 1 GB.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import hashlib
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
import distance  # noqa: E402
import radosgw  # noqa: E402
import s3_faults  # noqa: E402

NAME = "far.db"
CONNECTIONS = 16
RANGE_BYTES = 8 << 20
BUFFER_BYTES = 1 << 20
SEALED = r"[0-9a-f]+-([0-9]+)-([0-9]+)-.*\.wal\.gz"


def wait_for(what, condition, patience_s=300):
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {patience_s} s for {what}")
        time.sleep(0.05)


def processor_s(server):
    """Of asof (children that have ended), of the server, of this process and its relay."""
    children, own = (resource.getrusage(w) for w in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
    ticks = 0
    for name in radosgw.NAMES:
        with open(f"/proc/{server.read_pid(name)}/stat", encoding="ascii") as f:
            ticks += sum(int(n) for n in f.read().rsplit(")", 1)[1].split()[11:13])
    return {"asof": children.ru_utime + children.ru_stime, "server": ticks / os.sysconf("SC_CLK_TCK"),
            "here": own.ru_utime + own.ru_stime}


class Bench:
    def __init__(self, folder, server, options, namespace=None):
        self.folder, self.server, self.options, self.namespace = folder, server, options, namespace
        self.host = server.host
        self.asof = os.path.join(options.build, "tools", "asof")
        self.load = os.path.join(options.build, "tools", "bench", "load")
        self.db = os.path.join(folder, NAME)
        self.archive = os.path.join(folder, "archive")
        self.url, self.port = server.url("bench"), server.port
        self.env = {**os.environ, **server.credentials(), "ASOF_CACHE_DIR": os.path.join(folder, "cache")}

    def run(self, *words, **more):
        return subprocess.run([self.asof, *words], env=self.env, check=True, text=True,
                              stdout=subprocess.PIPE, **more).stdout

    @contextlib.contextmanager
    def replicating(self, url):
        with open(os.path.join(self.folder, "log"), "a", encoding="utf-8") as log:
            p = subprocess.Popen([self.asof, "replicate", "--segment-size", "4M", self.db, self.archive, url],
                                 env=self.env, stderr=log)
        try:
            wait_for("the replicator", self.is_alive)
            yield p
        finally:
            p.send_signal(signal.SIGTERM)
            p.wait(60)

    def is_alive(self):
        run = subprocess.run([self.asof, "status", "--json", "--archive", self.archive], env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        return run.returncode == 0 and any(d["writer_alive"] for d in json.loads(run.stdout)["databases"])

    def wait_sent(self, url):
        self.run("wait", NAME, "--archive", self.archive, "--dest", url, "--timeout", "600")

    def write(self, commits, rate=0):
        subprocess.run([self.load, "run", self.db, f"commits={commits}", f"rate={rate}"], check=True,
                       stdout=subprocess.DEVNULL)

    def fill(self):
        megabytes = max(20, int(1000 * self.options.scale))
        subprocess.run([self.load, "create", self.db, str(megabytes), "1"], check=True,
                       stdout=subprocess.DEVNULL)
        with self.replicating(self.url):
            wait_for("the first snapshot", lambda: self.names("snapshot", r".*\.db\.gz"))
            for _ in range(4):
                self.write(400)
                time.sleep(1)
            wait_for("sealed segments", lambda: len(self.names("segment", r"[0-9a-f]+-[0-9]+\.wal\.gz")) <= 1 and
                     self.names("segment", SEALED))
            self.wait_sent(self.url)
            wait_for("them at the destination", self.all_there)

    def names(self, folder, pattern, root=None):
        with contextlib.suppress(FileNotFoundError):
            found = os.listdir(os.path.join(root or self.archive, "local", NAME, folder))
            return sorted(n for n in found if re.fullmatch(pattern, n))
        return []

    def all_there(self):
        """The first two, whatever comes after."""
        keys = self.server.request("GET", "/bench?list-type=2").decode()
        return len(self.names("segment", SEALED)) > 2 and all(
            n in keys for n in self.names("segment", SEALED)[:2])

    # ---- P9 ----

    def forget(self):
        shutil.rmtree(self.env["ASOF_CACHE_DIR"], ignore_errors=True)

    def point_query(self):
        """GETs, bytes, seconds; without the requests that list."""
        self.forget()
        proxy = s3_faults.Proxy(self.server.port, lambda method, path, n: None, host=self.server.host)
        mount = os.path.join(self.folder, "m")
        os.makedirs(mount, exist_ok=True)
        with sqlite3.connect(f"file:{self.db}?mode=ro", uri=True) as db:
            top = db.execute("SELECT max(id) FROM trades").fetchone()[0]
        wanted = random.Random(3).randrange(top // 4, top // 2)
        try:
            self.run("mount", proxy.url("bench"), mount)
            first = re.fullmatch(SEALED, self.names("segment", SEALED)[1])
            path = os.path.join(mount, "tx", NAME, str((int(first[1]) + int(first[2])) // 2))
            os.listdir(os.path.join(mount, "latest"))
            listed, listed_bytes = sum(proxy.counts.values()), proxy.bytes_sent
            begin = time.perf_counter()
            found = subprocess.run(["sqlite3", path, f"SELECT id FROM trades WHERE id = {wanted}"], check=True,
                                   stdout=subprocess.PIPE, text=True).stdout.strip()
            took = time.perf_counter() - begin
            if found != str(wanted):
                raise SystemExit(f"asked for {wanted}, found '{found}'")
        finally:
            subprocess.run(["fusermount3", "-u", mount], check=False)
            proxy.stop()
        return {"gets": sum(proxy.counts.values()) - listed, "bytes": proxy.bytes_sent - listed_bytes,
                "seconds": took, "before_gets": listed, "before_bytes": listed_bytes}

    # ---- restore ----

    def get(self, key, first, last):
        path = f"/bench/{key}"
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": f"{self.host}:{self.port}", "x-amz-date": now, "range": f"bytes={first}-{last}",
                   "x-amz-content-sha256": hashlib.sha256(b"").hexdigest()}
        c = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(c):
            c.request("GET", path, headers={**headers,
                                            "Authorization": radosgw.authorization("GET", path, headers)})
            answer = c.getresponse()
            buf, size = bytearray(BUFFER_BYTES), 0
            while n := answer.readinto(buf):
                size += n
            if answer.status != 206 or size != last - first + 1:
                raise SystemExit(f"GET {path}: {answer.status}, {size} bytes")
            return size

    def objects(self):
        """What a restore of the newest state reads at least: the snapshot that it stands on."""
        folder = os.path.join(self.archive, "local", NAME, "snapshot")
        return [(f"local/{NAME}/snapshot/{n}", os.path.getsize(os.path.join(folder, n)))
                for n in os.listdir(folder) if n.endswith(".db.gz")]

    def parallel_gets(self):
        pieces = [(key, at, min(size, at + RANGE_BYTES) - 1) for key, size in self.objects()
                  for at in range(0, size, RANGE_BYTES)]
        with self.timed() as took, concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            took["bytes"] = sum(pool.map(lambda p: self.get(*p), pieces))
        return took

    @contextlib.contextmanager
    def timed(self):
        took = {}
        before, begin = processor_s(self.server), time.perf_counter()
        yield took
        took["seconds"] = time.perf_counter() - begin
        took["processor_s"] = {k: v - before[k] for k, v in processor_s(self.server).items()}

    @contextlib.contextmanager
    def at_a_distance(self):
        o, host, port, url = self.options, self.host, self.port, self.url
        if self.namespace:
            self.namespace.limit(o.mbit)
        way = None
        if o.latency_ms or not self.namespace:
            way = distance.Distance(port, o.latency_ms / 1e3, 0 if self.namespace else o.mbit * 1e6 / 8, host)
            self.host, self.port = "127.0.0.1", way.port
            self.url = url.replace(f"{host}:{port}", f"{self.host}:{self.port}")
        try:
            yield way
        finally:
            self.host, self.port, self.url = host, port, url
            if way:
                way.stop()
            if self.namespace:
                self.namespace.limit(0)

    def restore(self, archive=None):
        self.forget()
        with tempfile.TemporaryDirectory(prefix="asof-far-", dir=self.options.out or self.folder) as folder:
            with self.timed() as took:
                self.run("restore", "--latest", "--archive", archive or self.url, "--db", NAME, "-o",
                         os.path.join(folder, "restored.db"))
        return took

    # ---- a destination that is away, and one that has nothing to do ----

    def outage(self):
        """`away` is asked for each request: the server answers 503 to all of them meanwhile."""
        state = {"away": False}
        proxy = s3_faults.Proxy(self.server.port, lambda *_: "503" if state["away"] else None,
                                host=self.server.host)
        url, rate = proxy.url("bench", "/outage"), 200
        try:
            with self.replicating(url):
                self.wait_sent(url)
                state["away"] = True
                begin = time.monotonic()
                self.write(rate * self.options.outage, rate)
                away_s = time.monotonic() - begin
                state["away"] = False
                begin = time.monotonic()
                self.wait_sent(url)
                caught_s = time.monotonic() - begin
                time.sleep(3)  # what is joined after
                before = sum(proxy.counts.values())
                time.sleep(self.options.idle)
                idle = sum(proxy.counts.values()) - before
        finally:
            proxy.stop()
        return {"away_s": away_s, "caught_up_s": caught_s, "times_the_rate": away_s / max(caught_s, 1e-3),
                "idle_s": self.options.idle, "idle_requests": idle}

    def restores(self):
        out = {"gets": [], "bucket": [], "local": []}
        for _ in range(3):
            out["gets"].append(self.parallel_gets())
            out["bucket"].append(self.restore())
            out["local"].append(self.restore(self.archive))
        return out

    def all(self):
        o = self.options
        self.fill()
        out = {"database_bytes": os.path.getsize(self.db)}
        if "p9" in o.only:
            out["point_query"] = [self.point_query() for _ in range(3)]
        if "restore" in o.only:
            out["restore"] = self.restores()
            if o.latency_ms or o.mbit:
                with self.at_a_distance():
                    out["restore_far"] = self.restores()
        if "outage" in o.only:
            out["outage"] = self.outage()
        return out


def median(values):
    return sorted(values)[len(values) // 2]


def print_table(out, options):
    print(f"database                        {out['database_bytes'] / 1e6:.0f} MB")
    if q := out.get("point_query"):
        print(f"P9 point query, cold            {max(p['gets'] for p in q)} GETs, "
              f"{max(p['bytes'] for p in q) / 1e3:.0f} kB, {median([p['seconds'] for p in q]) * 1e3:.0f} ms "
              f"(to mount and list: {q[0]['before_gets']} requests, {q[0]['before_bytes'] / 1e3:.0f} kB)")
    far = f"{options.latency_ms:g} ms away, {options.mbit:g} Mbit/s"
    for key, what in (("restore", "loopback"), ("restore_far", far)):
        if r := out.get(key):
            gets, bucket, local = (median([x["seconds"] for x in r[k]]) for k in ("gets", "bucket", "local"))
            print(f"restore, {what:<22} {bucket:.2f} s; the same bytes by {CONNECTIONS} parallel GETs "
                  f"{gets:.2f} s: {gets / bucket:.2f} of their rate; from the local archive {local:.2f} s: "
                  f"{max(gets, local) / bucket:.2f} of what the slower of the two allows")
            asof, server, here = (median([x["processor_s"][k] for x in r["bucket"]])
                                  for k in ("asof", "server", "here"))
            print(f"    of the processors             asof {asof:.1f} s, the server {server:.1f} s, "
                  f"the relay {here:.1f} s")
    if o := out.get("outage"):
        print(f"after an outage of {o['away_s']:.0f} s          caught up in {o['caught_up_s']:.1f} s: "
              f"{o['times_the_rate']:.1f} times the write rate")
        print(f"idle for {o['idle_s']} s                   {o['idle_requests']} requests")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    p.add_argument("--scale", type=float, default=0.3)
    p.add_argument("--outage", type=int, default=20)
    p.add_argument("--idle", type=int, default=60)
    p.add_argument("--latency-ms", type=float, default=30)
    p.add_argument("--mbit", type=float, default=400)
    p.add_argument("--only", default="p9,restore,outage")
    p.add_argument("--out")
    p.add_argument("--relay", action="store_true")
    p.add_argument("--json", action="store_true")
    options = p.parse_args()
    subprocess.run(["ninja", "-C", options.build, "tools/asof", "tools/bench/load"], check=True,
                   stdout=subprocess.DEVNULL)
    folder = tempfile.mkdtemp(prefix="asof-far-")
    namespace = None
    if not options.relay:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            namespace = distance.Namespace()
    server = radosgw.RadosGateway(os.path.join(folder, "s3"), host=namespace.host if namespace else "127.0.0.1",
                                  inside=namespace.inside if namespace else ())
    try:
        server.start()
        server.make_bucket("bench")
        out = Bench(folder, server, options, namespace).all()
        out["network"] = "namespace" if namespace else "relay"
    finally:
        server.stop()
        if namespace:
            namespace.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps(out, indent=1))
    else:
        print_table(out, options)


if __name__ == "__main__":
    main()
