#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the #include lines to the layers of the design, and some rules about live databases.

 1. tools -> fs -> engine: engine includes engine only, fs includes fs and engine.
 2. Inside engine a module includes only itself and those before it in ENGINE.
 3. Project headers are named from the root ("engine/base/err.h"), and exist.
 4. Every header has a guard of its own, named after it, and compiles alone.
 5. Only LIVE may open a database through SQLite: closing a descriptor of a database, its WAL or
    its shm file drops all locks that the process holds on it.
"""

import os
import re
import shlex
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# One rank may hold several modules: these do not see each other.
ENGINE = [["base"], ["sqlite"], ["gz"], ["archive"], ["store"], ["capture"], ["view"], ["query"],
          ["restore"], ["compact"], ["retain"], ["verify"], ["ship"], ["backup"], ["copy"], ["repair"], ["schedule"],
          ["monitor"], ["config"], ["daemon"], ["observe"]]
RANK = {module: i for i, row in enumerate(ENGINE) for module in row}
TOPS = {"engine": {"engine"}, "fs": {"fs", "engine"}, "tools": {"tools", "fs", "engine"},
        "tests": {"tests", "tools", "fs", "engine"}}
# engine/capture holds the locks itself, engine/view opens images of the past through its VFS,
# engine/backup/reader.c is all that runs in the child process that reads a live database, and
# engine/restore/inplace.c has a child of its own put back what a transaction that died has changed.
LIVE = ("engine/capture/", "engine/view/", "engine/backup/reader.c", "engine/restore/inplace.c")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
COMPILE = ["-std=gnu11", "-D_GNU_SOURCE", '-DASOF_VERSION="0"', "-Wall", "-Wextra", "-Werror",
           "-Wno-unused-parameter", "-Wno-unused-function", "-I" + ROOT, "-fsyntax-only"]


def sources(top):
    for folder, dirs, files in os.walk(os.path.join(ROOT, top)):
        dirs[:] = [d for d in dirs if not d.startswith(".")]
        for name in sorted(files):
            if name.endswith((".c", ".h")):
                yield os.path.relpath(os.path.join(folder, name), ROOT)


def module_of(path):
    parts = path.split("/")
    return parts[1] if parts[0] == "engine" and len(parts) > 2 else None


def check_include(path, target):
    if "/" not in target:
        return f'"{target}" is not named from the root of the tree'
    if not os.path.exists(os.path.join(ROOT, target)):
        return f'"{target}" does not exist'
    top, target_top = path.split("/")[0], target.split("/")[0]
    if target_top not in TOPS[top]:
        return f"{top} must not include {target}"
    if top != "engine":
        return None
    mine, theirs = module_of(path), module_of(target)
    if mine not in RANK:
        return f"engine/{mine} has no place in the order of tests/check_layers.py"
    if theirs != mine and (theirs not in RANK or RANK[theirs] >= RANK[mine]):
        return f"engine/{mine} must not include {target} (it comes first)"
    return None


def check_file(path, guards):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        text = f.read()
    for target in INCLUDE.findall(text):
        problem = check_include(path, target)
        if problem:
            yield problem
    if path.startswith("engine/") and not path.startswith(LIVE) and \
            re.search(r"\bsqlite3_open(_v2|16)?\s*\(", text):
        yield "opens a database through SQLite: that is for " + " and ".join(LIVE)
    if path.endswith(".h"):
        m = re.search(r"^#ifndef (ASOF_\w+)\n#define \1$", text, re.M)
        name = re.sub(r"[^A-Z0-9]", "_", os.path.basename(path).upper())
        if not m or not m.group(1).endswith("_" + name):
            yield f"has no guard ASOF_..._{name}"
        elif guards.setdefault(m.group(1), path) != path:
            yield f"has the guard of {guards[m.group(1)]}"
    if "SPDX-License-Identifier: Apache-2.0" not in text.split("\n")[0]:
        yield "does not begin with its SPDX line"


def pkg_config_flags():
    out = subprocess.run(["pkg-config", "--cflags", "fuse3", "sqlite3", "jansson", "zlib",
                          "libxxhash", "nettle", "libcurl", "libmicrohttpd"], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    return shlex.split(out)


def check_headers_compile(headers):
    flags = pkg_config_flags()
    for path in headers:
        run = subprocess.run(["gcc", *COMPILE, *flags, "-x", "c", "-"], cwd=ROOT, check=False,
                             input=f'#include "{path}"\n#include "{path}"\n', text=True,
                             stderr=subprocess.PIPE)
        if run.returncode:
            yield f"{path}: does not compile alone:\n{run.stderr}"


def main():
    problems, guards, n = [], {}, 0
    files = [path for top in TOPS for path in sources(top)]
    for path in files:
        n += 1
        problems += [f"{path}: {p}" for p in check_file(path, guards)]
    problems += check_headers_compile([p for p in files if p.endswith(".h")])
    for problem in problems:
        print(problem)
    print(f"{n} files looked at, {len(problems)} problems")
    return 1 if problems or not n else 0


if __name__ == "__main__":
    sys.exit(main())
