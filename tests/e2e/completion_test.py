#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=300 asan
"""Shell completion: what asof --complete says of the tables that the program has, and what bash, zsh
and fish make of it on a terminal, key by key."""

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness

SCRIPTS = os.path.join(harness.ROOT, "tools", "completions")
TYPES = ["manual", "automated", "safety", "compressed"]


def words(*typed, env=None):
    """What the shell adds, and the candidates."""
    run = harness.asof("--complete", *typed, env=env)
    if run.returncode or run.stderr:
        raise AssertionError(f"{typed}: status {run.returncode}: {run.stderr}")
    first, *rest = run.stdout.splitlines()
    return first, [line.split("\t")[0] for line in rest]


def commands():
    text = harness.asof("--help").stdout
    return re.findall(r"^  ([a-z]+) ", re.search(r"^commands:\n(.*?)\n\n", text, re.M | re.S)[1],
                      re.M)


def options(command):
    """Long options of --help, and what their arguments are called."""
    text = harness.asof(command, "--help").stdout
    part = re.search(r"^options:\n(.*?)\n\n", text, re.M | re.S)[1]
    return dict(re.findall(r"^  (?:-., |    )(--[a-z-]+)(?: (\S+))?", part, re.M))


class ArchiveCase(harness.Case):
    """An archive with two databases, one of which has a name that a shell would have to quote."""

    names = ["ohlc cache.db", "trades.db"]

    def setUp(self):
        super().setUp()
        for name in self.names:
            db = self.open_db(self.path(name))
            harness.make_counter(db)
            r = self.replicate(db=self.path(name))
            r.wait_ready() if name == self.names[0] else harness.wait_for(
                "both", lambda: len(harness.asof_json("list", "--archive", self.archive)
                                    ["databases"]) == 2)
            db.close()
            r.stop()
        self.env = {"ASOF_ARCHIVE": self.archive}


class Program(ArchiveCase):
    def test_commands(self):
        every = commands()
        self.assertIn("replicate", every)
        self.assertEqual(words(""), ("nothing", every))
        for name in every:
            self.assertEqual(words(name[:3])[1], [c for c in every if c.startswith(name[:3])])
            self.assertEqual(words("help", name)[1], [c for c in every if c.startswith(name)])
        self.assertEqual(words("-"), ("nothing", ["--help", "--version"]))

    def test_options_of_every_command(self):
        for command in commands():
            with self.subTest(command=command):
                every = options(command)
                self.assertGreater(len(every), 2)
                self.assertEqual(sorted(words(command, "--")[1]), sorted(every))
                # Behind an option that takes an argument no option is offered.
                for name, arg in every.items():
                    what, offered = words(command, name, "--")
                    self.assertEqual(bool(offered), not arg, (name, offered))
                    if arg in ("FILE", "OUT"):
                        self.assertEqual(what, "files", name)
                    if arg in ("ARCHIVE", "DIR"):
                        self.assertEqual(what, "folders", name)
                    if arg == "TYPE":
                        self.assertEqual(words(command, name, "")[1], TYPES)
                # Behind "--" there are only arguments.
                self.assertNotIn("--help", words(command, "--", "")[1])
                self.assertEqual(words(command, "--", "--")[1], [])

    def test_names_of_databases(self):
        for typed in (["log", ""], ["status", ""], ["query", ""], ["diff", ""],
                      ["restore", "--db", ""], ["log", "--limit", "3", ""], ["log", "-n", "3", ""],
                      ["log", "--limit=3", ""]):
            self.assertEqual(words(*typed, env=self.env), ("nothing", self.names), typed)
        self.assertEqual(words("log", "tr", env=self.env)[1], ["trades.db"])
        self.assertEqual(words("restore", "--db=tr", env=self.env)[1], ["--db=trades.db"])
        self.assertEqual(words("log", "--archive", self.archive, "o")[1], self.names[:1])
        self.assertEqual(words("log", "--archive=" + self.archive, "o")[1], self.names[:1])
        # Where there is no archive there is nothing to offer, and nothing to complain about.
        self.assertEqual(words("log", "x"), ("nothing", []))
        self.assertEqual(words("log", "--archive", self.path("none"), "t"), ("nothing", []))
        # The second word of log is no database, the second one of diff neither.
        for typed in (["log", "trades.db", "t"], ["diff", "trades.db", "t"]):
            self.assertEqual(words(*typed, env=self.env), ("nothing", []))

    def test_files_and_folders(self):
        for typed, what in ((["replicate", ""], "files"), (["replicate", "x.db", ""], "folders"),
                            (["replicate", "--adopt", "x.db", ""], "folders"),
                            (["mount", "/a", ""], "folders"), (["umount", ""], "folders"),
                            (["validate", "a", "b", ""], "files"), (["list", ""], "nothing"),
                            (["restore", "-o", ""], "files"), (["restore", "--from=x"], "files")):
            self.assertEqual(words(*typed)[0], what, typed)

    def test_nonsense(self):
        for typed in (["nonsense", ""], ["nonsense", "--", "-"], ["log", "--nonsense", "-"],
                      ["log", "--=", "--="], ["log", "--" + "x" * 5000 + "="], ["-", "-", "-"],
                      ["log", "-", ""], ["help", "log", ""], ["log", "--json=x", "--json=x"]):
            words(*typed)


class Terminal:
    """A shell on a terminal of its own, and what stands on its line after some keys."""

    def __init__(self, case, argv, setup, env):
        self.out = case.path("line")
        harness.need_terminal()
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(case.dir)
            os.environ.update(env, TERM="dumb", HOME=case.dir, LINE_OUT=self.out, LC_ALL="C.UTF-8",
                              PATH=os.path.dirname(harness.ASOF) + ":" + os.environ["PATH"])
            os.execvp(argv[0], argv)
        self.pid = pid
        self.seen = ""
        case.addCleanup(self.close)
        self.type(setup + "\recho rea''dy\r")
        self.read_until("ready\r\n")

    def type(self, text):
        os.write(self.fd, text.encode())

    def read(self):
        if select.select([self.fd], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):
                self.seen += os.read(self.fd, 65536).decode(errors="replace")

    def read_until(self, text):
        end = time.monotonic() + harness.PATIENCE
        while text not in self.seen:
            self.read()
            if time.monotonic() > end:
                raise AssertionError(f"no {text!r} in {self.seen!r}")

    def line(self, typed):
        """The line once `typed` was typed, tab keys among it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.out)
        self.type(typed + "\x18d")
        end = time.monotonic() + harness.PATIENCE
        while not os.path.exists(self.out):
            self.read()
            if time.monotonic() > end:
                raise AssertionError(f"no line after {typed!r}: {self.seen!r}")
        time.sleep(0.05)
        with open(self.out, encoding="utf-8") as f:
            text = f.read()
        self.type("\x15")
        return text

    def close(self):
        with contextlib.suppress(OSError):
            os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


class Shell(ArchiveCase):
    """What all three do; a subclass has the shell."""

    def check(self, shell):
        for typed, line in (
                ("asof repl\t", "asof replicate "),
                ("asof umo\t", "asof umount "),
                ("asof log tr\t", "asof log trades.db "),
                ("asof log oh\t", "asof log ohlc\\ cache.db "),
                ("asof log --lim\t", "asof log --limit "),
                ("asof backup --type comp\t", "asof backup --type compressed "),
                ("asof replicate tra\t", "asof replicate trades.db"),
                ("asof replicate trades.db arch\t", "asof replicate trades.db archive/"),
                ("asof log --since 2024-01-15T10:30:00Z --lim\t",
                 "asof log --since 2024-01-15T10:30:00Z --limit "),
                ("asof restore --db=tr\t", "asof restore --db=trades.db ")):
            with self.subTest(typed=typed):
                got = shell.line(typed)
                self.assertEqual(got.rstrip(" "), line.rstrip(" "))
        self.assertEqual(shell.line("asof list tr\t").rstrip(), "asof list tr")

    def test_bash(self):
        shell = Terminal(
            self, ["bash", "--norc", "--noprofile", "-i"],
            "PS1='$ '; bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; "
            f"source {SCRIPTS}/asof.bash; rm -f trades.db-*; "
            r"""bind -x '"\C-xd": printf %s "$READLINE_LINE" >"$LINE_OUT"'""", self.env)
        self.check(shell)

    @unittest.skipUnless(shutil.which("zsh"), "no zsh here")
    def test_zsh(self):
        shell = Terminal(
            self, ["zsh", "-f", "-i"],
            f"PS1='$ '; fpath=({SCRIPTS} $fpath); autoload -U compinit; compinit -u -D; "
            "unsetopt beep; rm -f trades.db-*; "
            "keep() { printf %s \"$BUFFER\" >$LINE_OUT }; zle -N keep; bindkey '^Xd' keep", self.env)
        self.check(shell)

    @unittest.skipUnless(shutil.which("fish"), "no fish here")
    def test_fish(self):
        def lines(typed):
            out = subprocess.run(
                ["fish", "--no-config", "-c", f"source {SCRIPTS}/asof.fish; complete -C '{typed}'"],
                cwd=self.dir, check=True, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **self.env, "HOME": self.dir,
                     "PATH": os.path.dirname(harness.ASOF) + ":" + os.environ["PATH"]})
            return [line.split("\t")[0] for line in out.stdout.splitlines()]
        self.assertEqual(lines("asof repl"), ["replicate"])
        self.assertEqual(lines("asof log tr"), ["trades.db"])
        self.assertEqual(lines("asof log --lim"), ["--limit"])
        self.assertEqual(lines("asof backup --type comp"), ["compressed"])
        self.assertIn("trades.db", lines("asof replicate trad"))
        self.assertEqual(lines("asof replicate trades.db arch"), ["archive/"])
        self.assertEqual(sorted(lines("asof log ")), sorted(self.names))


if __name__ == "__main__":
    harness.main()
