#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shell scripts pass shellcheck, Python files compile.  Scripts are found by their first line."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def first_line(path):
    with open(path, "rb") as f:
        return f.readline(200)


def main():
    shell, failed = [], 0
    for top in (".ci", "engine", "fs", "tools", "tests"):
        for folder, dirs, files in os.walk(os.path.join(ROOT, top)):
            dirs[:] = [d for d in dirs if d not in ("__pycache__", "data")]
            for name in sorted(files):
                path = os.path.join(folder, name)
                head = first_line(path)
                if name.endswith(".bash") or (head.startswith(b"#!") and
                                              head.strip().endswith((b"sh", b"bash"))):
                    shell.append(path)
                if name.endswith(".py") or b"python3" in head:
                    try:
                        with open(path, encoding="utf-8") as f:
                            compile(f.read(), path, "exec")
                    except SyntaxError as problem:
                        print(problem)
                        failed = 1
    run = subprocess.run(["shellcheck", "-x", *shell], cwd=ROOT, check=False)
    print(f"{len(shell)} shell scripts looked at")
    return failed or run.returncode


if __name__ == "__main__":
    sys.exit(main())
