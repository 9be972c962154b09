# SPDX-License-Identifier: Apache-2.0
"""The measurements.  Everything compared is measured in turns within one run: machines differ
and drift, ratios of neighbours less so."""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import time

from systems import Failed, tree_bytes, wait_until

QUERY = "SELECT max(id) FROM trades"


def median(values):
    return statistics.median(values) if values else None


def quartiles(values):
    if len(values) < 2:
        return (values[0], values[0]) if values else (None, None)
    q = statistics.quantiles(values, n=4, method="inclusive")
    return q[0], q[2]


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


class Bench:
    def __init__(self, build, scratch, asof, peers, quick, rounds, seed, scale=1.0):
        self.load = os.path.join(build, "tools/bench/load")
        self.reads = os.path.join(build, "tools/bench/reads")
        self.scratch, self.asof, self.peers = scratch, asof, peers
        self.quick, self.rounds, self.seed, self.scale = quick, rounds, seed, scale
        self.holders, self.mounts = [], []
        self.results = {}

    # ---- tools ----

    def path(self, *names):
        return os.path.join(self.scratch, *names)

    def run_load(self, db, **keys):
        words = [f"{k}={v}" for k, v in keys.items()]
        run = subprocess.run([self.load, "run", db, *words], stdout=subprocess.PIPE, check=True)
        return json.loads(run.stdout)

    def run_reads(self, *words):
        run = subprocess.run([self.reads, *map(str, words)], stdout=subprocess.PIPE, check=True)
        return json.loads(run.stdout)

    def hold(self, db):
        """Like an application that stays open: the WAL is not removed between windows."""
        holder = subprocess.Popen([self.load, "hold", db], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)
        holder.stdout.readline()
        self.holders.append(holder)
        return holder

    def let_go(self, holder):
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
        self.holders.remove(holder)

    def evict(self, folder):
        files = [os.path.join(top, n) for top, _, names in os.walk(folder) for n in names]
        files = [f for f in files if os.path.getsize(f)]
        for i in range(0, len(files), 500):
            self.run_reads("evict", *files[i:i + 500])

    @staticmethod
    def checkpoint(db):
        subprocess.run(["sqlite3", db, "PRAGMA busy_timeout=10000",
                        "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, stdout=subprocess.DEVNULL)
        fd = os.open(db, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def clean_up(self):
        for system in [self.asof, *self.peers]:
            system.detach()
        self.end_pass_through()
        for folder in self.mounts:
            self.asof.umount(folder)
        for holder in list(self.holders):
            self.let_go(holder)

    def mount(self, store):
        folder = self.path("mnt" + str(len(self.mounts)))
        self.mounts.append(folder)
        self.asof.mount(store, folder)
        return folder

    # ---- P4, P5, P8: what attaching costs, and how far capture is behind ----

    def window(self, db, system, seconds, warm, **keys):
        """One window; `system` None: the application alone."""
        self.checkpoint(db)
        if not system:
            return self.run_load(db, seconds=seconds, warm=warm, **keys)
        store = self.path("store-" + system.key)
        system.forget(db, store)
        try:
            pid = system.attach(db, store)
            if system is self.asof:
                keys = {"poll": 1000, **keys, "head": system.head(db, store)}
            r = self.run_load(db, seconds=seconds, warm=warm, watch=pid, **keys)
            if system is self.asof:
                status = system.status(store)
                r["gaps"] = status["gap_count"]
                r["unsealed_bytes"] = status["backlog_bytes"]
        finally:
            system.detach()
            system.forget(db, store)
        return r

    def attached(self, loads):
        db = self.path("live.db")
        subprocess.run([self.load, "create", db, str(20 if self.quick else 100), str(self.seed)],
                       check=True)
        holder = self.hold(db)
        seconds, warm = (2, 0.5) if self.quick else (8, 1)
        systems = [self.asof, *self.peers]
        for label, keys in loads:
            windows = []  # (system key or None, result), in order
            for n in range(self.rounds):
                order = systems[n % len(systems):] + systems[:n % len(systems)]
                for system in order:
                    keys["seed"] = self.seed + len(windows)
                    windows.append((None, self.window(db, None, seconds, warm, **keys)))
                    windows.append((system.key, self.window(db, system, seconds, warm, **keys)))
            windows.append((None, self.window(db, None, seconds, warm, **keys)))
            self.results.setdefault("attached", []).append(
                {"load": label, "keys": keys, "windows": windows})
            for system in systems:
                say(f"P4 {label}: {system.label}",
                    {k: round(v, 3) for k, v in paired(windows, system.key).items()
                     if isinstance(v, float)})
        self.let_go(holder)

    def capture_delay(self, rates):
        db, store = self.path("live.db"), self.path("store-delay")
        holder = self.hold(db)
        self.checkpoint(db)
        pid = self.asof.attach(db, store)
        time.sleep(1)
        for rate in rates:
            r = self.run_load(db, seconds=3 if self.quick else 20, warm=1, rate=rate, poll=100,
                              watch=pid, head=self.asof.head(db, store), seed=self.seed)
            self.results.setdefault("delay", []).append({"rate": rate, **r})
            say(f"P5 {rate}/s", r["captured"])
        self.asof.detach()
        self.asof.forget(db, store)
        self.let_go(holder)

    # ---- P1, P2, P3, P6: the past ----

    def history(self, system, base, commits, rate, tag):
        """A copy of `base` with so many commits captured by `system`, the same for each."""
        db = self.path(f"{tag}-{system.key}.db")
        store = self.path(f"{tag}-{system.key}")
        shutil.copyfile(base, db)
        holder = self.hold(db)
        marks = self.path(f"{tag}-{system.key}.marks")
        pid = system.attach(db, store)
        say(f"{tag}: {commits} commits with {system.label}")
        keys = {"head": system.head(db, store)} if system is self.asof else {}
        r = self.run_load(db, commits=commits, rate=rate, seed=self.seed, marks=marks, watch=pid,
                          **keys)
        time.sleep(4)  # what is uploaded once a second
        if system is self.asof:
            self.seal(db, store)
        system.detach()
        self.let_go(holder)
        with open(marks, encoding="ascii") as f:
            times = [tuple(map(int, line.split())) for line in f]
        return {"db": db, "store": store, "marks": times, "bytes": tree_bytes(store),
                "parts": self.parts(store), "run": r}

    @staticmethod
    def parts(store):
        """Bytes by the kind of folder they are in: snapshots, WAL or segments, levels."""
        parts = {}
        for top, _, names in os.walk(store):
            kind = os.path.basename(top)
            size = sum(os.path.getsize(os.path.join(top, n)) for n in names)
            if size:
                parts[kind] = parts.get(kind, 0) + size
        return parts

    def seal(self, db, store):
        """Until all segments are sealed: the last one is cut by a restart with a small limit."""
        self.asof.detach()
        self.asof.attach(db, store, "--segment-size", "64K")
        for attempt in range(2):
            self.run_load(db, commits=40, rate=0, seed=self.seed + 7 + attempt,
                          head=self.asof.head(db, store))
            time.sleep(0.5)

        def sealed():
            self.asof.process.check()
            return sum(os.path.getsize(os.path.join(store, "local", os.path.basename(db), "segment",
                                                    n)) for n in self.asof.growing(db, store)) < 1e6

        try:
            wait_until("sealing", sealed, 600, 0.5)
        except Failed as problem:
            say(problem)
        time.sleep(3)

    def spawn_query(self, path):
        begin = time.perf_counter()
        run = subprocess.run(["sqlite3", path, QUERY], stdout=subprocess.PIPE, check=True)
        return (time.perf_counter() - begin) * 1e3, int(run.stdout)

    @staticmethod
    def moment(time_us):
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_us // 1000000)) + \
            f".{time_us % 1000000:06d}Z"

    def touch_memory(self):
        """Memory that a virtual machine uses for the first time is slow: not in our figures."""
        with open("/proc/meminfo", encoding="ascii") as f:
            free = next(int(line.split()[1]) for line in f if line.startswith("MemFree")) // 1024
        self.run_reads("touch", min(free * 7 // 10, 1000 if self.quick else 6000))

    def past(self):
        if self.quick:
            sizes = [("large", 100, 10000, 2500), ("small", 10, 1000, 2500)]
        else:
            sizes = [("large", int(1000 * self.scale), int(100000 * self.scale), 4000),
                     ("small", int(100 * self.scale), int(10000 * self.scale), 4000)]
        self.touch_memory()
        made = {}
        for tag, megabytes, commits, rate in sizes:
            base = self.path(f"{tag}.db")
            subprocess.run([self.load, "create", base, str(megabytes), str(self.seed)], check=True)
            systems = [self.asof, *self.peers] if tag == "large" else [self.asof]
            for system in systems:
                made[tag, system.key] = self.history(system, base, commits, rate, tag)
            os.unlink(base)
        out = self.results["past"] = {"sizes": sizes}
        out["bytes"] = {k: made["large", k]["bytes"] for t, k in made if t == "large"}
        out["parts"] = {k: made["large", k]["parts"] for t, k in made if t == "large"}
        out["wal_bytes"] = made["large", "asof"]["run"]["wal_bytes_written"]
        out["asof_status"] = self.asof.status(made["large", "asof"]["store"])
        say("P6 bytes", out["bytes"], "of WAL", out["wal_bytes"], out["parts"])
        self.first_answers(made, out)
        self.restores(made, out)
        self.copies(made["large", "asof"], out)
        self.cached_reads(made["large", "asof"], out)

    def first_answers(self, made, out):
        dice = random.Random(self.seed)
        mounts = {}
        for tag in ("large", "small"):
            mounts[tag] = self.mount(made[tag, "asof"]["store"])
        n = 20 if self.quick else 100
        answers = {"large": [], "small": [], "plain": []}
        first = {}
        far = 0
        last_id = self.spawn_query(made["large", "asof"]["db"])[1]
        for i in range(n):
            for tag, folder in mounts.items():
                h = made[tag, "asof"]
                marks = h["marks"]
                # Marks lie a tenth of a second and more inside what was captured.
                number, at_us = marks[dice.randrange(len(marks) // 20, len(marks) * 19 // 20)]
                path = os.path.join(folder, "at", self.moment(at_us), os.path.basename(h["db"]))
                ms, found = self.spawn_query(path)
                first.setdefault(tag, ms)
                if i:
                    answers[tag].append(ms)
                if tag == "large":
                    far = max(far, abs(found - (last_id - 80 - marks[-1][0] + number)))
            answers["plain"].append(self.spawn_query(made["large", "asof"]["db"])[0])
        for folder in mounts.values():
            self.asof.umount(folder)
        out["first_answer_ms"] = answers
        out["first_of_mount_ms"] = first
        out["commits_off"] = far
        say("P1 median ms", {k: round(median(v), 2) for k, v in answers.items()},
            "the mount's first", first, "commits off at most", far)

    def restores(self, made, out):
        out["restore_s"] = {}
        for system in [self.asof, *self.peers]:
            h = made["large", system.key]
            for part in (0.5, 0.75, 0.9):
                number, at_us = h["marks"][int(len(h["marks"]) * part)]
                target = self.path("restored.db")
                self.evict(h["store"])
                begin = time.perf_counter()
                try:
                    system.restore(h["store"], self.moment(at_us), target)
                except (Failed, subprocess.CalledProcessError) as problem:
                    say(f"{system.label} restore to {part}:", problem)
                    continue
                took = time.perf_counter() - begin
                out["restore_s"].setdefault(system.key, []).append(took)
                say(f"{system.label} restore to {number} commits: {took:.2f} s,",
                    os.path.getsize(target) // 1000000, "MB")
                self.remove(target)

    @staticmethod
    def remove(path):
        for end in ("", "-wal", "-shm", ".tmp-wal", ".tmp-shm", "-txid"):
            if os.path.exists(path + end):
                os.unlink(path + end)

    def copies(self, h, out):
        out["copy"], out["inflate"] = [], []
        snapshots = os.path.join(h["store"], "local", os.path.basename(h["db"]), "snapshot")
        largest = max((os.path.join(snapshots, n) for n in os.listdir(snapshots)),
                      key=os.path.getsize)
        target = self.path("copied.db")
        for i in range(3 if self.quick else 5):
            _, at_us = h["marks"][int(len(h["marks"]) * (0.5 + i / 12))]
            self.evict(h["store"])
            out["inflate"].append(self.run_reads("inflate", largest, os.cpu_count()))
            self.evict(h["store"])
            folder = self.mount(h["store"])
            source = os.path.join(folder, "at", self.moment(at_us), os.path.basename(h["db"]))
            begin = time.perf_counter()
            subprocess.run(["cp", source, target], check=True)
            took = time.perf_counter() - begin
            size = os.path.getsize(target)
            out["copy"].append({"seconds": took, "mb_per_second": size / took / 1e6})
            self.asof.umount(folder)
            say(f"P2 cp {size / took / 1e6:.0f} MB/s, {took:.2f} s; all cores inflate",
                f"{out['inflate'][-1]['mb_per_second']:.0f} MB/s")
            if i == 0:
                ok = subprocess.run(["sqlite3", target, "PRAGMA quick_check"], check=True,
                                    stdout=subprocess.PIPE, text=True).stdout.strip()
                if ok != "ok":
                    raise Failed(f"the copy is not sound: {ok[:300]}")
            self.remove(target)

    def pass_through(self):
        """The scratch folder through bindfs, if there is one: what FUSE alone costs."""
        if not shutil.which("bindfs"):
            return None
        folder = self.path("through")
        os.makedirs(folder)
        subprocess.run(["bindfs", "-r", "-o", "kernel_cache", self.scratch, folder], check=True)
        return folder

    def end_pass_through(self):
        if os.path.ismount(self.path("through")):
            subprocess.run(["fusermount3", "-uz", self.path("through")], check=True)

    def cached_reads(self, h, out):
        folder = self.mount(h["store"])
        past = os.path.join(folder, "at", self.moment(h["marks"][len(h["marks"]) // 2][1]),
                            os.path.basename(h["db"]))
        plain = self.path("plain.db")
        shutil.copyfile(past, plain)
        paths = {"plain": plain, "mount": past}
        through = self.pass_through()
        if through:
            paths["bindfs"] = os.path.join(through, os.path.basename(plain))
        holder = os.open(past, os.O_RDONLY)  # the inode and its pages stay
        out["reads"] = {kind: {key: [] for key in paths} for kind in ("random", "sequential")}
        seconds = 1 if self.quick else 3
        for path in paths.values():
            self.run_reads("sequential", path, seconds)
        cpu_s, reads = -self.asof.server_cpu_s(h["store"], folder), 0
        for i in range(3 if self.quick else 7):
            for kind, extra in (("random", [self.seed + i]), ("sequential", [])):
                for key, path in paths.items():
                    r = self.run_reads(kind, path, seconds, *extra)
                    out["reads"][kind][key].append(r["mb_per_second"])
                    reads += r["reads"] if key == "mount" else 0
        out["cached_read_count"] = reads
        out["cached_read_cpu_s"] = cpu_s + self.asof.server_cpu_s(h["store"], folder)
        os.close(holder)
        self.asof.umount(folder)
        self.end_pass_through()
        os.unlink(plain)
        say("P3 MB/s", {k: {s: round(median(v)) for s, v in d.items()}
                        for k, d in out["reads"].items()})


def paired(windows, key):
    """Each window with `key` against the windows alone before and after it; medians of ratios."""
    ratios = {"per_second": [], "p50_us": [], "p99_us": []}
    cpu_more, busy, busy_alone, waits, waits_alone = [], 0, 0, 0, 0
    for i, (who, r) in enumerate(windows):
        if who != key:
            continue
        before, after = windows[i - 1][1], windows[i + 1][1]
        for name, values in ratios.items():
            alone = (before.get(name, 0) + after.get(name, 0)) / 2
            if alone and name in r:
                values.append(r[name] / alone)
        alone = (before["cpu_s"] / before["seconds"] + after["cpu_s"] / after["seconds"]) / 2
        cpu_more.append((r["cpu_s"] + r["watched_cpu_s"]) / r["seconds"] - alone)
        busy += r["busy"]
        waits += r["waits"]
        busy_alone += (before["busy"] + after["busy"]) / 2
        waits_alone += (before["waits"] + after["waits"]) / 2
    out = {"busy": busy, "busy_alone": busy_alone, "waits": waits, "waits_alone": waits_alone,
           "cpu_more": median(cpu_more)}
    for name, values in ratios.items():
        out[name] = median(values)
        out[name + "_iqr"] = quartiles(values)
    mine = [r for who, r in windows if who == key]
    for name in ("watched_rss_kb", "watched_anon_kb", "wal_file_max"):
        out["max_" + name] = max((r[name] for r in mine), default=0)
    out["watched_cpu"] = median([r["watched_cpu_s"] / r["seconds"] for r in mine])
    return out
