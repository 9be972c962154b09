# SPDX-License-Identifier: Apache-2.0
"""Finds and runs the program asof; its data comes as JSON, its errors as one line."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

# Exit statuses of the program.
DONE, FAILED, USAGE, NOT_FOUND, DAMAGED, UNREACHABLE = range(6)


class AsofError(RuntimeError):
    """The program failed: `str()` is its line, `status` its exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def find() -> str:
    """The path of the program; AsofError if there is none."""
    given = os.environ.get("ASOF")
    if given:
        return given
    in_path = shutil.which("asof")
    if in_path:
        return in_path
    # In a checkout tools/python/backup_manager/ and build/tools/asof; installed
    # share/asof/python/backup_manager/ and bin/asof.
    above = list(Path(__file__).resolve().parents)
    for folder, place in zip(above[3:5], ("build/tools/asof", "bin/asof")):
        if os.access(str(folder / place), os.X_OK):
            return str(folder / place)
    raise AsofError("asof not found: it is not in PATH (set ASOF to where it is)", FAILED)


def _error_line(stderr: str, status: int) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    ours = [line[len("asof: "):] for line in lines if line.startswith("asof: ")]
    if ours:
        return ours[-1]
    return lines[-1] if lines else "asof ended with status %d" % status


def run(words: Sequence[str], accept: Tuple[int, ...] = (DONE,)) -> Dict[str, Any]:
    """Runs `asof WORDS --json`; its object.  AsofError for a status that is not in `accept`."""
    program = find()
    try:
        done = subprocess.run([program, *words, "--json"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    except OSError as problem:
        raise AsofError("%s: %s" % (program, problem.strerror), FAILED) from None
    stderr = done.stderr.decode("utf-8", "replace")
    if done.returncode not in accept:
        raise AsofError(_error_line(stderr, done.returncode), done.returncode)
    value = _parse(done.stdout)
    if value is None:
        raise AsofError(_error_line(stderr, done.returncode), done.returncode or FAILED)
    return value


def _parse(stdout: bytes) -> Optional[Dict[str, Any]]:
    try:
        value = json.loads(stdout.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
