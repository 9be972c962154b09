#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shell scripts pass shellcheck; Python files compile and begin as they should (the runner reads its
orders there).  Scripts are found by their first line."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def first_line(path):
    with open(path, "rb") as f:
        return f.readline(200)


# An interpreter where it is a program, the licence, and orders to the runner where there are some.
PYTHON_HEAD = re.compile(r"(#!/usr/bin/env python3\n)?# SPDX-License-Identifier: Apache-2\.0\n"
                         r"(# runner: .*\n)?(\"\"\"|[^#])")


def problem_of(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    try:
        compile(text, path, "exec")
    except SyntaxError as problem:
        return str(problem)
    if not PYTHON_HEAD.match(text):
        return "does not begin with #!, SPDX and runner lines as others do"
    return None


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
                    problem = problem_of(path)
                    if problem:
                        print(f"{os.path.relpath(path, ROOT)}: {problem}")
                        failed = 1
    run = subprocess.run(["shellcheck", "-x", *shell], cwd=ROOT, check=False)
    print(f"{len(shell)} shell scripts looked at")
    return failed or run.returncode


if __name__ == "__main__":
    sys.exit(main())
