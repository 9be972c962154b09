#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All C code is as clang-format leaves it.  `check_format.py --fix [FILE]...` puts it so."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def sources():
    for top in ("engine", "fs", "tools", "tests"):
        for folder, _, files in os.walk(os.path.join(ROOT, top)):
            for name in sorted(files):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(folder, name), ROOT)


def main():
    if sys.argv[1:2] == ["--fix"]:
        # It would take a script for C.
        given = [name for name in sys.argv[2:] if name.endswith((".c", ".h"))]
        files = given if sys.argv[2:] else list(sources())
        return files and subprocess.run(["clang-format", "-i", *files], cwd=ROOT,
                                        check=False).returncode
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", *sources()], cwd=ROOT,
                         check=False)
    if run.returncode:
        print("tests/check_format.py --fix FILE puts a file right")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
