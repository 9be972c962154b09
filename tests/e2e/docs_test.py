#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300
"""What is written is true: manual pages against --help, their examples run, README against both.

An example is run as it stands, in a sandbox: /backups, /data, /mnt, /tmp, /etc and /srv become folders
of it, and moments become moments that its history has.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness

MAN = os.path.join(harness.ROOT, "tools", "man")
BUILT = os.path.join(os.path.dirname(harness.ASOF), "man")
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]
# Orders to a running daemon: their examples are run beside one.
OF_DAEMON = {"pause", "resume", "add", "drop", "sync", "reload", "wait"}
FOLDERS = ("backups", "data", "mnt/usb", "tmp", "etc", "srv/eu")


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def commands():
    text = harness.asof("--help").stdout
    return re.findall(r"^  ([a-z]+) ", re.search(r"^commands:\n(.*?)\n\n", text, re.M | re.S)[1],
                      re.M)


def page(command):
    return read(os.path.join(MAN, f"asof-{command}.1.md"))


def sections(text):
    parts = re.split(r"^# (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def plain(text):
    return " ".join(re.sub(r"[*\\]|(?<!\w)_|_(?!\w)", "", text).split())


def options_of_help(command):
    """--name or -x: what the argument is called, or ''."""
    text = harness.asof(command, "--help").stdout
    part = re.search(r"^options:\n(.*?)\n\n", text, re.M | re.S)[1]
    found = {}
    for line in part.splitlines():
        m = re.match(r"  (-.,|   ) (--[a-z-]+)(?: (\S+))?(?=  |$| )", line)
        if not m:
            raise AssertionError(f"{command}: {line!r} is no option")
        found[m[2]] = m[3] or ""
        if m[1].strip():
            found[m[1][:2]] = ""
    return found


def options_of_page(text):
    """The same of the terms of section OPTIONS."""
    found = {}
    for term in re.findall(r"^(\*\*-.*)\n(?:\n)?:   ", sections(text)["OPTIONS"], re.M):
        for name, arg in re.findall(r"\*\*(--?[a-z-]+)\*\*(?: \*([^*]+)\*)?", term, re.I):
            if name in found:
                raise AssertionError(f"{name} is there twice")
            found[name] = arg
    return found


def example_lines(text):
    """Command lines in the code of EXAMPLES."""
    joined = re.sub(r"\\\n +", "", sections(text)["EXAMPLES"])
    return [line.strip() for line in re.findall(r"^    (\S.*)$", joined, re.M)]


class Pages(unittest.TestCase):
    maxDiff = None

    def test_a_page_for_each_command(self):
        files = sorted(f for f in os.listdir(MAN) if f.endswith(".md"))
        self.assertEqual(files, sorted([f"asof-{c}.1.md" for c in commands()] +
                                       ["asof.1.md", "asof.yml.5.md",
                                        "asof-alerts.7.md", "asof-metrics.7.md"]))

    def test_options_are_those_of_help(self):
        for command in commands():
            with self.subTest(command=command):
                self.assertEqual(options_of_page(page(command)), options_of_help(command))
        common = options_of_page(read(os.path.join(MAN, "asof.1.md")))
        for command in commands():
            self.assertLessEqual(set(common), set(options_of_help(command)))

    def test_synopsis_is_the_usage(self):
        for command in commands():
            with self.subTest(command=command):
                usage = re.match(r"usage: (.*)", harness.asof(command, "--help").stdout)[1]
                first = sections(page(command))["SYNOPSIS"].strip().split("\n\n")[0]
                self.assertEqual(plain(first), usage)

    def test_layout(self):
        names = {f.rsplit(".", 2)[0] for f in os.listdir(MAN) if f.endswith(".md")}
        for command in commands():
            with self.subTest(command=command):
                text = page(command)
                have = list(sections(text))
                self.assertEqual([s for s in have if s in SECTIONS], SECTIONS)
                self.assertLessEqual(set(have), set(SECTIONS) | {"NOTES"})
                self.assertTrue(sections(text)["NAME"].startswith(f"\n\nasof-{command} - "))
                self.assertIn(f"asof {command} ", " ".join(example_lines(text)) + " ")
        for name in os.listdir(MAN):
            if name.endswith(".md"):
                for other in re.findall(r"\*\*(asof[a-z.-]*)\*\*\(\d\)", read(os.path.join(MAN, name))):
                    self.assertIn(other, names, name)

    def test_every_kind_of_alert(self):
        text = read(os.path.join(MAN, "asof-alerts.7.md"))
        codes = re.findall(r'^\tX\(\w+, "([a-z-]+)"\)',
                           read(os.path.join(harness.ROOT, "engine/monitor/health.h")), re.M)
        self.assertIn("capture-late", codes)
        self.assertEqual([c for c in codes if c != "ok" and f"**{c}**" not in text], [])

    def test_overview_has_every_command(self):
        text = sections(read(os.path.join(MAN, "asof.1.md")))["COMMANDS"]
        self.assertEqual(sorted(re.findall(r"\*\*asof-([a-z]+)\*\*\(1\)", text)), sorted(commands()))

    @unittest.skipUnless(shutil.which("lowdown"), "no lowdown here")
    def test_formats_without_warnings(self):
        pages = sorted(os.listdir(MAN))
        pages = [p.removesuffix(".md") for p in pages if p.endswith(".md")]
        for name in pages:
            with self.subTest(page=name):
                path = os.path.join(BUILT, name)
                run = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-Kutf8", path],
                                     check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True)
                self.assertEqual(run.stderr, "")
                self.assertGreater(len(run.stdout.splitlines()), 30)
                roff = read(path)
                title, section = name.rsplit(".", 1)
                self.assertRegex(roff, rf'(?i)\A[^\n]*\n\.TH "{re.escape(title)}" "{section}" ""')
                self.assertRegex(roff, rf'\n\.SH "NAME"\n\.LP\n{re.escape(title)} \\- \w')
                # What one copies from a terminal are dashes, not hyphens.
                self.assertNotRegex(roff, r"\\f[BC][^\\\n]*(?<!\\)-")
                if section == "1":
                    for option in options_of_page(read(os.path.join(MAN, name + ".md"))):
                        self.assertIn(r"\fB" + option.replace("-", r"\-") + r"\fR", roff)


class Examples(harness.Case):
    """Every example of every page."""

    def sandbox(self):
        for folder in FOLDERS:
            os.makedirs(self.path(folder))
        trades = self.path("data", "trades.db")
        for path in (trades, self.path("data", "futures_trades.db"), self.path("data", "ohlc_cache.db"),
                     self.path("srv/eu", "trades.db")):
            db = self.open_db(path)
            db.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, symbol TEXT)")
            db.execute("INSERT INTO trades (symbol) VALUES ('ES'), ('NQ')")
            db.close()
        replicator = self.replicate(db=trades, archive=self.path("backups"))
        replicator.wait_ready()
        db = self.open_db(trades)
        for _ in range(3):
            db.execute("INSERT INTO trades (symbol) VALUES ('ES')")
            time.sleep(0.02)
        db.close()
        replicator.wait_known()
        replicator.stop()
        with open(self.path("etc", "asof.yml"), "w", encoding="utf-8") as f:
            f.write(f"archive: {self.path('backups')}\n"
                    f"databases:\n  - path: {trades}\n"
                    f"  - path: {self.path('data', 'futures_trades.db')}\n")
        run = harness.asof("backup", "--db-path", trades, "--archive", self.path("backups"))
        self.assertEqual(run.returncode, 0, run.stderr)
        folder = self.path("backups", "manual")
        made = next(f for f in os.listdir(folder) if f.endswith(".gz"))
        shutil.copy(os.path.join(folder, made), os.path.join(folder, "trades_20240115_103000.db.gz"))
        with open(self.path("etc", "migration.sql"), "w", encoding="utf-8") as f:
            f.write("CREATE INDEX by_symbol ON trades (symbol);\n")
        log = harness.asof_json("log", "trades.db", "--archive", self.path("backups"))
        return log["commits"][2]["time"]

    def translate(self, line, moment):
        line = re.sub(r"(?<![\w/.-])/(backups|data|mnt|tmp|etc|srv)\b", self.dir + r"/\1", line)
        return re.sub(r"(?<=[ /])(-\d+[smhd]|2024-01-15T10:29:58)\b", moment, line)

    def start(self, line, cwd=None):
        """A line that ends with '&'; ended by its own id."""
        process = subprocess.Popen(["sh", "-c", "exec " + line.rstrip("& ")], env=self.env,
                                   cwd=cwd or self.path("etc"), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.send_signal, signal.SIGTERM)
        time.sleep(1)
        self.assertIsNone(process.poll(), line)
        return process

    def first_time(self, folder):
        run = harness.asof("list", "--json", "--archive", self.path(folder))
        return run.returncode == 0 and json.loads(run.stdout)["databases"][0]["first_time"]

    def run_line(self, line, translated, cwd):
        run = subprocess.run(["sh", "-c", translated], env=self.env, cwd=cwd,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        # The sandbox is one disk, which doctor is right to find.
        found = line.startswith("asof doctor") and re.fullmatch(
            r"asof: doctor: \d+ serious findings? \(see above\)\n", run.stderr)
        self.assertEqual(run.returncode, 1 if found else 0,
                         f"{line}\n{translated}\n{run.stdout}{run.stderr}")

    def run_page(self, command):
        moment = self.sandbox()
        self.env = {**os.environ, "PATH": os.path.dirname(harness.ASOF) + ":" + os.environ["PATH"]}
        self.env.pop("ASOF_ARCHIVE", None)
        if command in OF_DAEMON:
            config = self.path("etc", "asof.yml")
            self.start(f"asof run --config {config} &")
            harness.wait_for("the daemon", lambda: harness.asof("sync", "--wait", "--config", config)
                             .returncode == 0)
        lines = example_lines(page(command))
        self.assertTrue(lines)
        for line in lines:
            translated = self.translate(line, moment)
            if line.endswith("&"):
                self.start(translated)
                continue
            self.run_line(line, translated, cwd=self.path("etc"))


    def test_readme_first_lines(self):
        """What somebody types who has read ten lines of the README."""
        harness.need_fuse()
        self.sandbox()
        os.mkdir(self.path("backup"))
        self.env = {**os.environ, "PATH": os.path.dirname(harness.ASOF) + ":" + os.environ["PATH"]}
        lines = re.findall(r"^    \$ ([^#\n]*?) *(?:#.*)?$", Readme.text, re.M)
        self.assertEqual(len(lines), 5)
        moment = "latest"
        for line in lines:
            line = re.sub(r"(?<![\w/.-])/(backup|mnt)\b", self.dir + r"/\1", line)
            line = re.sub(r"/at/[^/]*/", f"/at/{moment}/", line)
            if line.endswith("&"):
                self.start(line, cwd=self.path("data"))
                moment = harness.wait_for("a first snapshot", lambda: self.first_time("backup"))
                continue
            self.run_line(line, line, cwd=self.path("data"))
        self.assertEqual(counted(self.path("data", "restored.db")), 2)


def counted(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT count(*) FROM trades").fetchone()[0]


def add_example_tests():
    for path in sorted(os.listdir(MAN)):
        m = re.fullmatch(r"asof-([a-z]+)\.1\.md", path)
        if m:
            def test(self, command=m[1]):
                if "asof mount" in page(command):
                    harness.need_fuse()
                self.run_page(command)
            setattr(Examples, f"test_{m[1]}", test)


class Readme(unittest.TestCase):
    text = read(os.path.join(harness.ROOT, "README.md"))

    def test_links_lead_somewhere(self):
        for folder, dirs, files in os.walk(harness.ROOT):
            dirs[:] = [d for d in dirs if not d.startswith((".", "build")) and d != "data"]
            for name in files:
                if not name.endswith(".md"):
                    continue
                text = re.sub(r"`[^`\n]*`", "", read(os.path.join(folder, name)))
                for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
                    if "://" not in link:
                        self.assertTrue(os.path.exists(os.path.join(folder, link)), (name, link))

    def test_table_has_every_command(self):
        table = "\n".join(re.findall(r"^\| .*$", self.text, re.M))
        spans = " ".join(re.findall(r"`([^`]+)`", table))
        for command in commands():
            self.assertRegex(spans, rf"(?<![-\w]){command}(?![-\w])")

    def test_names_no_other_command(self):
        every = set(commands()) | {"--version"}
        # In code: "asof WORD" where a shell would run it.
        code = re.findall(r"^    (.*)$", self.text, re.M) + re.findall(r"`([^`\n]+)`", self.text)
        for line in code:
            for word in re.findall(r"(?:^|[\s$|;&(])asof ([a-z-]+)(?=\s|$)", line):
                self.assertIn(word, every, line)

    def test_is_short(self):
        self.assertLessEqual(len(self.text.split("## Changes")[0].splitlines()), 180)


add_example_tests()

if __name__ == "__main__":
    harness.main()
