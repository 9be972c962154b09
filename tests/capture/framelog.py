# SPDX-License-Identifier: Apache-2.0
"""Reads and judges the log that capture_dump writes (its record format stands there).

judge() replays a log: every commit must bump the counter row by one and chain its hash,
except at the first commit behind a declared break.  After a break the copy taken by the
sink, with the frames since the break applied, must again be the database.
"""
import hashlib
import re
import struct

WHY = ["first", "gap", "rewound", "replaced", "page-size"]
ROW = re.compile(rb"CTR:(\d{16}):([0-9a-f]{16}):")


def next_hash(previous, n):
    return hashlib.sha256(previous + b"%d" % n).hexdigest()[:16].encode()


def records(path):
    with open(path, "rb") as f:
        data = memoryview(f.read())
    at = 0
    while at + 5 <= len(data):
        kind, length = chr(data[at]), struct.unpack_from("<I", data, at + 1)[0]
        if at + 5 + length > len(data):
            return
        yield kind, data[at + 5:at + 5 + length]
        at += 5 + length


class Verdict:
    def __init__(self):
        self.commits = self.frames = self.batches = 0
        self.breaks = []          # names, in order
        self.lost = 0             # commits that lie in declared breaks
        self.undeclared = []      # what must not be
        self.pages = None         # {page number: bytes}, whole after an image
        self.n_pages = 0
        self.page_size = 0
        self.image_whole = False
        self.figures = ""
        self.delay_us = []
        self.known_until = 0

    def final_image(self):
        zero = bytes(self.page_size)
        return b"".join(self.pages.get(i, zero) for i in range(1, self.n_pages + 1))


class Judge:
    def __init__(self, counter=True):
        self.v = Verdict()
        self.counter = counter
        self.n = None             # counter of the last commit
        self.hash = None
        self.jump = True          # the next commit may follow from anywhere
        self.at = None            # (salt1, salt2, frame)
        self.pending = []
        self.since = {}           # newest pages since the break
        self.since_n_pages = 0
        self.not_before = 0

    def on_break(self, body):
        why, page_size, epoch = struct.unpack_from("<IIQ", body)
        v = self.v
        v.breaks.append(WHY[why])
        v.page_size = page_size
        self.epoch = epoch
        self.jump = True
        self.at = None
        self.pending = []
        self.since = {}
        self.since_n_pages = 0
        v.image_whole = False

    def on_image(self, body):
        epoch, page_size = struct.unpack_from("<QI", body)
        if epoch != self.epoch:
            self.v.undeclared.append("an image of epoch %d in %d" % (epoch, self.epoch))
            return
        pages = {i + 1: bytes(body[12 + i * page_size:12 + (i + 1) * page_size])
                 for i in range((len(body) - 12) // page_size)}
        pages.update(self.since)
        v = self.v
        v.n_pages = self.since_n_pages or len(pages)
        v.pages = {k: p for k, p in pages.items() if k <= v.n_pages}
        v.image_whole = True

    def commit(self, n_pages):
        v = self.v
        v.commits += 1
        new = dict(self.pending)
        self.pending = []
        self.since.update(new)
        self.since_n_pages = n_pages
        if v.image_whole:
            v.pages.update(new)
            v.n_pages = n_pages
        if not self.counter:
            return
        found = [m for p in new.values() for m in ROW.findall(p)]
        if not found:
            v.undeclared.append("commit %d without the counter" % v.commits)
            return
        n, h = max((int(a), b) for a, b in found)
        if self.n is not None and not self.jump:
            if n != self.n + 1:
                v.undeclared.append("counter %d after %d" % (n, self.n))
            elif h != next_hash(self.hash, n):
                v.undeclared.append("hash chain broken at %d" % n)
        elif self.n is not None:
            v.lost += max(0, n - self.n - 1)
        self.jump = False
        self.n, self.hash = n, h

    def on_frames(self, body):
        v = self.v
        (flags, page_size, n, observed, not_before, s1, s2, frame, _, _,
         _) = struct.unpack_from("<IIIqqIIQIII", body)
        start = frame - n
        v.batches += 1
        v.frames += n
        if self.at and self.at[:2] == (s1, s2):
            if start < self.at[2]:   # pieces of a transaction come again after a resume
                if not self.pending:
                    v.undeclared.append("frame %d again" % start)
                self.pending = self.pending[:len(self.pending) - (self.at[2] - start)]
            elif start > self.at[2]:
                v.undeclared.append("frames %d..%d skipped" % (self.at[2], start))
        elif start != 0:
            v.undeclared.append("a generation begins at frame %d" % start)
        self.at = (s1, s2, frame)
        if not_before and not_before > observed:
            v.undeclared.append("not_before after observed")
        if len(body) == 56:
            v.commits += flags >> 1 & 1
            return
        step = 24 + page_size
        for i in range(n):
            at = 56 + i * step
            pgno, n_pages = struct.unpack_from(">II", body, at)
            self.pending.append((pgno, bytes(body[at + 24:at + step])))
            if n_pages:
                self.commit(n_pages)
        if bool(flags & 2) != (not self.pending):
            v.undeclared.append("ends_commit is wrong at frame %d" % frame)

    def run(self, path):
        for kind, body in records(path):
            if kind == "B":
                self.on_break(body)
            elif kind == "F":
                self.on_frames(body)
            elif kind == "S":
                self.on_image(body)
            elif kind == "C":
                self.v.known_until = struct.unpack_from("<q", body)[0]
            elif kind == "E":
                self.v.figures = bytes(body).decode()
        return self.v


def judge(path, counter=True):
    return Judge(counter).run(path)


def figure(verdict, name):
    return int(re.search(r"%s=(\d+)" % name, verdict.figures).group(1))
