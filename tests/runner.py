#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds, finds and runs every test; tests/run is the way to start it.

A job is one process with a time limit, a log and a scratch folder of its own:

    build/KIND            one of the builds below
    unit/NAME, fuzz/NAME, capture/...
                          meson tests (tests/unit/test_*.c, tests/fuzz/fuzz_*.c as replay), under
                          ASan and UBSan; unit tests again as tsan/NAME and valgrind/NAME
    fuzzing/NAME          the same fuzz targets, a few seconds with libFuzzer
    e2e/NAME              tests/e2e/NAME_test.py, tests/capture/…, tests/python/…, with ASOF in the
                          environment and first in PATH
    check/NAME            layers, format, tidy, shell, python

Exit status 0 of a job is a pass, 77 a skip, anything else a failure.  Where the output is
cmocka's or unittest's, the cases in it are counted one by one.  An e2e file can carry a line

    # runner: timeout=300 serial asan

to change its limit, to run with nothing beside it, and to run once more with an asof built
with sanitizers.  Whatever a job leaves behind (processes, mounts) is ended after it.

Programs that wait for programs can be starved by whatever else a machine does.  So where at most
RERUN_MAX e2e and capture jobs failed, each runs once more, alone, and that counts; a job that
passes only then is named as unstable at the end, and the log of its failure is kept.  It is a
defect to be looked at, of the test or of asof; --no-rerun makes it a failure.
"""

import argparse
import concurrent.futures
import fcntl
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, "build")
LOGS = os.path.join(BUILD, "test-logs")
JOB_VARIABLE = "ASOF_TEST_JOB"  # marks the processes of a job, however they detach
PARALLEL = 2

# Sanitizers of these compilers do not know every layout that a kernel may choose.
FIXED_LAYOUT = ["setarch", os.uname().machine, "-R"]

STRICT = ["-Dwerror=true"]
BUILDS = {
    "release": (None, ["--buildtype=release", *STRICT]),
    "asan": (None, ["-Db_sanitize=address,undefined", "-Db_lundef=false",
                    "-Dc_args=-fno-sanitize-recover=all", *STRICT]),
    "tsan": (None, ["-Db_sanitize=thread", "-Db_lundef=false", *STRICT]),
    "clang": ("clang", ["-Db_sanitize=address,undefined", "-Db_lundef=false",
                        "-Dc_args=-fsanitize=fuzzer-no-link -fno-sanitize-recover=all "
                        "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION",
                        *STRICT]),
}

SANITIZER_ENV = {
    "ASAN_OPTIONS": "handle_segv=2:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}
FUZZ_SECONDS = 5
RERUN_MAX = 8
# Limits end what hangs.  A test names what it takes on an idle machine, with room.
PATIENCE_FACTOR = 3


class Job:
    def __init__(self, name, command, timeout=120, env=None, serial=False, cwd=ROOT, layout=False):
        self.name = name
        self.command = FIXED_LAYOUT + command if layout else command
        self.timeout = PATIENCE_FACTOR * timeout
        self.env = env or {}
        self.serial = serial
        self.cwd = cwd
        self.passed = self.failed = self.skipped = 0
        self.seconds = 0.0
        self.notes = []
        self.unstable = False

    @property
    def log(self):
        return os.path.join(LOGS, self.name.replace("/", "-") + ".log")


# ---- running ----


def own_processes(marker):
    """Processes that carry the marker of a job in their environment."""
    wanted = f"{JOB_VARIABLE}={marker}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if wanted in f.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            pass
    return found


def mounts_below(folder):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        points = [line.split()[4].replace("\\040", " ") for line in f]
    return [p for p in reversed(points) if p == folder or p.startswith(folder + "/")]


def clean_up(marker, folder):
    """Ends what a job left behind; returns a description of it."""
    left = []
    for point in mounts_below(folder):
        left.append(f"mount {point}")
        command = ["umount", "-l", point] if os.geteuid() == 0 else ["fusermount3", "-uz", point]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    for sig, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        pids = own_processes(marker)
        if not pids:
            break
        left += [f"process {p} ({signal.Signals(sig).name})" for p in pids]
        for pid in pids:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass
        end = time.monotonic() + patience
        while time.monotonic() < end and own_processes(marker):
            time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)
    return left


CASE = [
    (re.compile(r"^\[       OK \] (\S+)"), "passed"),
    (re.compile(r"^\[  FAILED  \] (?:\S+: )?(\w+)$"), "failed"),
    (re.compile(r"^\[  SKIPPED \] (?:\S+: )?(\w+)$"), "skipped"),
    (re.compile(r"^(test\w* \([^)]*\)).*?\.\.\. (?:.*\s)?ok$"), "passed"),
    (re.compile(r"^(test\w* \([^)]*\)).*?\.\.\. (?:.*\s)?(?:FAIL|ERROR)$"), "failed"),
    (re.compile(r"^(test\w* \([^)]*\)).*?\.\.\. (?:.*\s)?skipped (.*)$"), "skipped"),
]


def count_cases(text):
    """Cases in the output of cmocka or unittest: names of the passed, the failed and the skipped,
    these with their reason."""
    cases, reasons = {}, {}
    previous = ""
    for line in text.splitlines():
        # A docstring puts the name of a unittest case on a line of its own.
        joined = f"{previous} {line}" if re.match(r"^test\w* \(.*\)$", previous) else line
        for pattern, outcome in CASE:
            m = pattern.match(joined)
            if m:
                if cases.get(m.group(1)) != "failed":
                    cases[m.group(1)] = outcome
                if m.re.groups > 1:
                    reasons[m.group(1)] = m.group(2)
                break
        previous = line
    def of(outcome):
        return [" ".join(filter(None, (n, reasons.get(n)))) for n, o in cases.items()
                if o == outcome]

    return of("passed"), of("failed"), of("skipped")


def judge(job, status, text, timed_out):
    passed, failed, skipped = count_cases(text)
    job.passed, job.failed, job.skipped = len(passed), len(failed), len(skipped)
    if timed_out:
        job.failed += 1
        job.notes.append(f"timed out after {job.timeout} s")
    elif status == 77 and not skipped:
        job.skipped = 1
        skipped = [line for line in text.splitlines() if line.strip()][-1:]
    elif status not in (0, 77) and not job.failed:
        job.failed = 1
        job.notes.append(f"exit status {status}")
    elif status == 0 and job.failed:
        job.notes.append("exit status 0 in spite of failed cases")
    elif status == 0 and not (job.passed or job.skipped):
        job.passed = 1
    job.notes += [f"failed: {name}" for name in failed] + [f"skipped: {name}" for name in skipped]
    # Where everything is meant to be tested, a machine without FUSE is no excuse.
    missed = [reason for reason in skipped if re.search("no fuse", reason, re.I)]
    if os.environ.get("CI") == "true" and missed:
        job.failed += len(missed)
        job.skipped -= len(missed)
        job.notes.append("a FUSE test was skipped, which CI=true does not allow")


def run_job(job):
    marker = f"{os.getpid()}-{job.name}"
    folder = tempfile.mkdtemp(prefix="asof-test-")
    os.chmod(folder, 0o711)  # some tests become somebody else
    env = {**os.environ, **SANITIZER_ENV, **job.env, JOB_VARIABLE: marker, "TMPDIR": folder,
           "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    env.pop("ASOF_ARCHIVE", None)
    started = time.monotonic()
    timed_out = False
    with open(job.log, "wb") as log:
        process = subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=env, cwd=job.cwd, start_new_session=True)
        try:
            status = process.wait(job.timeout)
        except subprocess.TimeoutExpired:
            timed_out, status = True, -1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    left = clean_up(marker, folder)
    job.seconds = time.monotonic() - started
    with open(job.log, "a", encoding="utf-8") as log:
        for thing in left:
            log.write(f"runner: left behind: {thing}\n")
    with open(job.log, encoding="utf-8", errors="replace") as log:
        judge(job, status, log.read(), timed_out)


def repro(job):
    env = " ".join(f"{k}={shlex.quote(v)}" for k, v in job.env.items() if k != "PATH")
    return f"cd {shlex.quote(job.cwd)} && {env} {shlex.join(job.command)}".replace("  ", " ")


PRINT_LOCK = threading.Lock()


def report(job):
    word = "FAIL" if job.failed else "pass" if job.passed else "skip"
    cases = job.passed + job.failed + job.skipped
    count = f"{cases} cases" if cases > 1 else ""
    with PRINT_LOCK:
        print(f"{word}  {job.name:<34} {job.seconds:6.1f} s  {count}".rstrip(), flush=True)
        for note in job.notes:
            print(f"        {note}")
        if job.failed:
            with open(job.log, encoding="utf-8", errors="replace") as f:
                for line in f.read().splitlines()[-60:]:
                    print(f"    | {line}")
            print(f"    log: {os.path.relpath(job.log, ROOT)}\n    again: {repro(job)}", flush=True)


def run_all(jobs):
    def one(job):
        run_job(job)
        report(job)

    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(one, (j for j in jobs if not j.serial)))
    for job in jobs:
        if job.serial:
            one(job)


def run_again(jobs):
    failed = [j for j in jobs if j.failed and j.name.split("/")[0] in ("e2e", "capture", "python")]
    if len(failed) > RERUN_MAX:
        return
    for job in failed:
        os.replace(job.log, job.log.removesuffix(".log") + ".first.log")
        job.notes = ["a second time, alone"]
        run_job(job)
        report(job)
        job.unstable = not job.failed


# ---- what there is ----


def directory(kind):
    return os.path.join(BUILD, kind)


def source_list():
    """The files that meson looks for by pattern: when they change it must look again."""
    found = []
    for folder in ("tests/unit", "tests/fuzz", "tests/lib", "tests/capture"):
        path = os.path.join(ROOT, folder)
        if os.path.isdir(path):
            found += [f"{folder}/{n}" for n in sorted(os.listdir(path))
                      if n.endswith(".c") or n == "meson.build"]
    return "\n".join(found)


def configure(kind):
    """Meson knows every source file after it, and what is tested; nothing is compiled."""
    compiler, options = BUILDS[kind]
    path = directory(kind)
    stamp = os.path.join(path, "asof-sources")
    env = {**os.environ, **({"CC": compiler} if compiler else {})}
    listing = source_list()
    try:
        with open(stamp, encoding="utf-8") as f:
            current = f.read() == listing
    except FileNotFoundError:
        current = False
    if not current:
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["meson", "setup", path, ROOT, *options], env=env, check=True,
                       stdout=sys.stderr)  # the list of tests goes to the other
        with open(stamp, "w", encoding="utf-8") as f:
            f.write(listing)


def build(kind):
    configure(kind)
    # The build with clang is there for fuzzing, and for the flags that clang-tidy reads.
    targets = ["fuzzers"] if kind == "clang" else []
    return subprocess.run(["ninja", "-C", directory(kind), *targets], check=False).returncode


def build_job(kind):
    return Job(f"build/{kind}", [sys.executable, os.path.abspath(__file__), "--build", kind],
               timeout=900, serial=True)


def meson_tests(kind):
    out = subprocess.run(["meson", "introspect", "--tests", directory(kind)], check=True,
                         stdout=subprocess.PIPE).stdout
    for test in json.loads(out):
        suites = [s.split(":")[-1] for s in test["suite"]]
        suite = suites[0] if suites else "meson"
        name = test["name"].removeprefix(suite + " ").replace(", ", "-").replace(" ", "-")
        # Commands are relative to the build's folder.
        yield {**test, "name": name, "workdir": test["workdir"] or directory(kind)}, suite


def e2e_jobs():
    for folder in ("e2e", "capture", "python"):
        path = os.path.join(ROOT, "tests", folder)
        for name in sorted(os.listdir(path) if os.path.isdir(path) else []):
            if not name.endswith("_test.py"):
                continue
            file = os.path.join(path, name)
            with open(file, encoding="utf-8") as f:
                text = f.read()
            m = re.search(r"^# runner: (.*)$", text, re.M)
            words = m.group(1).split() if m else []
            limit = next((int(w[8:]) for w in words if w.startswith("timeout=")), 180)
            command = [sys.executable, file] + (["-v"] if "unittest" in text else [])
            kinds = ["release"] + (["asan"] if "asan" in words else [])
            for kind in kinds:
                tools = os.path.join(directory(kind), "tools")
                env = {"ASOF": os.path.join(tools, "asof"), "ASOF_BUILD": directory(kind),
                       "PATH": tools + ":" + os.environ.get("PATH", "/usr/bin:/bin")}
                suffix = "" if kind == "release" else "-" + kind
                yield Job(f"{folder}/{name[:-8]}{suffix}", command, limit, env, "serial" in words,
                          layout=kind != "release")


def fuzzing_jobs():
    folder = os.path.join(ROOT, "tests", "fuzz")
    for name in sorted(os.listdir(folder)):
        if not (name.startswith("fuzz_") and name.endswith(".c")):
            continue
        target = name[:-2]
        # Finds go to a scratch corpus; what is worth keeping is moved to tests/data by hand.
        scratch = os.path.join(BUILD, "fuzz-corpus", target[5:])
        os.makedirs(scratch, exist_ok=True)
        corpus = os.path.join(ROOT, "tests", "data", "fuzz", target[5:])
        command = [os.path.join(directory("clang"), "tests", "fuzz", target),
                   f"-max_total_time={FUZZ_SECONDS}", "-timeout=10", "-rss_limit_mb=1024",
                   "-error_exitcode=1",  # its own, 77, would be a skip
                   "-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={LOGS}/{target}-",
                   scratch]
        command += [corpus] if os.path.isdir(corpus) else []
        yield Job(f"fuzzing/{target[5:]}", command, 60, layout=True)


def source_folders():
    for top in ("engine", "fs", "tools"):
        for folder, dirs, files in os.walk(os.path.join(ROOT, top)):
            dirs[:] = [d for d in dirs if d != "bench"]
            if any(f.endswith(".c") for f in files):
                yield os.path.relpath(folder, ROOT)


def check_jobs(quick):
    tests = os.path.join(ROOT, "tests")
    yield Job("check/layers", [sys.executable, os.path.join(tests, "check_layers.py")])
    yield Job("check/scripts", [sys.executable, os.path.join(tests, "check_scripts.py")])
    yield Job("check/format", [sys.executable, os.path.join(tests, "check_format.py")])
    if not quick:
        for folder in sorted(source_folders()):
            yield Job("tidy/" + folder.replace("/", "-"),
                      [sys.executable, os.path.join(tests, "check_tidy.py"), directory("clang"),
                       folder], timeout=600)


def after_build_jobs(quick):
    yield from check_jobs(quick)
    for test, suite in meson_tests("asan"):
        yield Job(f"{suite}/{test['name']}", test["cmd"], test["timeout"] or 120, test["env"],
                  serial=not test["is_parallel"], cwd=test["workdir"], layout=True)
    if not quick:
        for test, suite in meson_tests("tsan"):
            if suite == "unit":
                yield Job(f"tsan/{test['name']}", test["cmd"], 300,
                          {**test["env"], "ASOF_TEST_SHORT": "1"}, cwd=test["workdir"],
                          layout=True)
        for test, suite in meson_tests("release"):
            if suite == "unit":
                yield Job(f"valgrind/{test['name']}",
                          ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full",
                           "--show-leak-kinds=definite,possible", *test["cmd"]], 300,
                          {**test["env"], "ASOF_TEST_SHORT": "1"}, cwd=test["workdir"])
        yield from fuzzing_jobs()
    yield from e2e_jobs()


def wanted(name, patterns):
    return not patterns or any(p in name or fnmatch.fnmatch(name, p) for p in patterns)


def take_build():
    """Two at once would take each other's builds away.  Held until this process ends."""
    lock = os.open(os.path.join(BUILD, "tests.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("tests/run: another one is at work in build/ (wait for its end, or use a clone)")


def main():
    parser = argparse.ArgumentParser(prog="tests/run")
    parser.add_argument("--quick", action="store_true",
                        help="without valgrind, clang-tidy, fuzzing and the thread sanitizer")
    parser.add_argument("--list", action="store_true", help="name the tests and run none")
    parser.add_argument("--build", choices=sorted(BUILDS), help="bring one build up to date")
    parser.add_argument("--no-rerun", action="store_true",
                        help="what fails once has failed")
    parser.add_argument("pattern", nargs="*", help="a part of the name of the tests to run")
    options = parser.parse_args()

    if options.build:
        return build(options.build)
    os.makedirs(LOGS, exist_ok=True)
    take_build()
    started = time.monotonic()
    kinds = ["release", "asan"] + ([] if options.quick else ["tsan", "clang"])
    if options.list:
        for kind in kinds:
            configure(kind)
        print("\n".join(j.name for j in after_build_jobs(options.quick)
                        if wanted(j.name, options.pattern)))
        return 0
    builds = [build_job(kind) for kind in kinds]
    run_all(builds)
    jobs = []
    if not any(b.failed for b in builds):
        jobs = [j for j in after_build_jobs(options.quick) if wanted(j.name, options.pattern)]
        run_all(jobs)
        if not options.no_rerun:
            run_again(jobs)
    everything = builds + jobs
    failed_jobs = [j.name for j in everything if j.failed]
    unstable = [j.name for j in everything if j.unstable]
    if failed_jobs:
        print("\nfailed: " + " ".join(failed_jobs))
    if unstable:
        print("\nunstable (failed, then passed alone; see build/test-logs/*.first.log): "
              + " ".join(unstable))
    if not jobs and not failed_jobs:
        print("no test of that name", file=sys.stderr)
    passed, failed, skipped = (sum(getattr(j, n) for j in jobs + [b for b in builds if b.failed])
                               for n in ("passed", "failed", "skipped"))
    print(f"\n{time.monotonic() - started:.0f} s; logs in build/test-logs")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
