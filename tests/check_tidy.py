#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_tidy.py BUILD FOLDER: clang-tidy over the C files of one folder.

BUILD is a build with clang, whose flags are used.  A file that passed is not looked at again
until it, a header of the tree, or .clang-tidy changes.
"""

import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def digest_of(paths):
    h = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as f:
            h.update(path.encode() + b"\0" + f.read())
    return h.hexdigest()


def headers():
    for top in ("engine", "fs", "tools", "tests"):
        for folder, _, files in os.walk(os.path.join(ROOT, top)):
            yield from (os.path.join(folder, n) for n in sorted(files) if n.endswith(".h"))


def compiled(build):
    """Files that the build knows; others (no part of this configuration) cannot be looked at."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        return f.read()


def main():
    build, folder = sys.argv[1:]
    stamps = os.path.join(build, "tidy-passed")
    os.makedirs(stamps, exist_ok=True)
    common = digest_of([os.path.join(ROOT, ".clang-tidy"), *headers()])
    known = compiled(build)
    failed = looked = 0
    for name in sorted(os.listdir(os.path.join(ROOT, folder))):
        path = os.path.join(ROOT, folder, name)
        if not name.endswith(".c") or f"{folder}/{name}" not in known:
            continue
        looked += 1
        stamp = os.path.join(stamps, digest_of([path]) + common[:16])
        if os.path.exists(stamp):
            continue
        run = subprocess.run(["clang-tidy", "--quiet", "-p", build, path], cwd=ROOT, check=False,
                             stderr=subprocess.PIPE, text=True)
        if run.returncode:
            sys.stderr.write(run.stderr)
            failed = 1
        else:
            with open(stamp, "w", encoding="utf-8"):
                pass
    print(f"{looked} files looked at")
    return failed


if __name__ == "__main__":
    sys.exit(main())
