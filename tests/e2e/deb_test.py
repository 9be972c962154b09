#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=900 serial
"""The Debian package, in a Debian of its own: built, installed with what it depends on, run, upgraded
beside a running replicator, removed, purged; and what is the user's is still there after it."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness

DEPLOY = os.path.join(harness.ROOT, "tools", "deploy")
# systemd's judgement of the unit, 0 (tight) to 10: see systemd-analyze security.
EXPOSURE_MAX = 3.0

STEPS = r"""
set -eu
cd /srv/build
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
say() { echo "== $*"; }
apt_get() { apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >apt.log 2>&1 ||
	{ tail -n 30 apt.log; exit 1; }; }
# What there is of it; what it wrote itself lies elsewhere.
files() { find / -xdev \( -path /srv/build -o -path /proc -o -path /var/lib/dpkg/info \
	-o -path /var/cache \) -prune -o -name '*asof*' -print | sort; }
wait_for() { tries=0; while ! "$@" >/dev/null 2>&1; do tries=$((tries + 1))
	[ $tries -lt 1200 ] || { echo "waited for: $*"; cat log; exit 1; }; sleep 0.1; done; }

say install
files >before
apt_get install ./"$1" sqlite3 fuse3
[ -z "$(dpkg --audit)" ]
[ -z "$(dpkg --verify asof)" ]
asof --version
litestream version
asof doctor --json >doctor.json || :
grep -q '"findings"' doctor.json
[ -s /usr/share/bash-completion/completions/asof ]
[ -s /lib/systemd/system/asof.service ]
grep -v '^#' /etc/asof.yml | grep . && exit 1
# Nothing is enabled or started by itself.
find /etc/systemd -name 'asof*' | grep . && exit 1

say run
mkdir -p /srv/app /var/backups/asof /var/lib/asof
sqlite3 /srv/app/app.db 'PRAGMA journal_mode=WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)'
printf 'archive: /var/backups/asof\nhttp: {listen: "unix:/srv/build/http"}\ndatabases:\n  - path: /srv/app/app.db\n' \
	>>/etc/asof.yml
asof run >log 2>&1 &
pid=$!
wait_for asof sync --wait
sqlite3 /srv/app/app.db 'INSERT INTO t VALUES (2)'
wait_for asof sync --wait

say extension
sqlite3 :memory: ".load $(echo /usr/lib/*/asof/libasofvfs.so)" ".open 'file:app.db?vfs=asof&archive=/var/backups/asof'" \
	'SELECT count(*) FROM t' >count
[ "$(cat count)" = 2 ]

if [ -e /dev/fuse ]; then
	say mount
	mount -t fuse.asof /var/backups/asof /mnt
	[ "$(sqlite3 /mnt/latest/app.db 'SELECT sum(a) FROM t')" = 3 ]
	umount /mnt
fi

say upgrade
apt_get install ./"$2"
dpkg-query -W -f '${Version}\n' asof | grep -qx 99.0
grep -q 'path: /srv/app/app.db' /etc/asof.yml
kill -0 $pid
sqlite3 /srv/app/app.db 'INSERT INTO t VALUES (4)'
wait_for asof sync --wait
asof query app.db 'SELECT sum(a) FROM t' | grep -q 7
kill -TERM $pid
wait $pid
asof backup --db-path /srv/app/app.db >/dev/null

say remove
apt_get remove asof
[ ! -e /usr/bin/asof ]
[ -e /etc/asof.yml ]
apt_get install ./"$1" --allow-downgrades
asof query app.db 'SELECT sum(a) FROM t' | grep -q 7

say purge
apt_get purge asof
[ -z "$(dpkg --audit)" ]
[ ! -e /etc/asof.yml ]
files >after
# The user's: archive and backups.
find /var/backups/asof -name '*.db.gz' | grep -q .
[ -d /var/lib/asof ]
grep -vxF -f before after | grep -v '^/var/backups/asof\|^/var/lib/asof$' && exit 1
say done
"""


def run(*command, timeout=300, **kw):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False, **kw)
    if done.returncode:
        raise AssertionError(f"{command}: status {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def mirror():
    """The archive that this machine has its packages from."""
    lines = run("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(SITE)",
                "Created-By: Packages").splitlines()
    for line in lines:
        codename, component, site = line.split(" ", 2)
        if codename == "bookworm" and component == "main":
            return site
    raise unittest.SkipTest("this machine has no packages of bookworm")


class Package(harness.Case):
    @classmethod
    def setUpClass(cls):
        for program in ("dpkg-deb", "dpkg-shlibdeps", "lowdown", "debootstrap", "lintian"):
            if not shutil.which(program):
                raise unittest.SkipTest(f"{program} is missing")

    def build(self):
        env = {k: v for k, v in os.environ.items() if k not in ("CFLAGS", "LDFLAGS")}
        out = run(os.path.join(DEPLOY, "build-deb"), self.dir, env=env, timeout=900)
        path = out.strip().splitlines()[-1]
        self.assertEqual(os.path.dirname(path), self.dir)
        return path

    def next_version(self, path):
        """The same, newer, with another text in its configuration: what a release does."""
        folder = self.path("next")
        run("dpkg-deb", "-R", path, folder)
        control = os.path.join(folder, "DEBIAN", "control")
        with open(control, encoding="utf-8") as f:
            text = f.read()
        with open(control, "w", encoding="utf-8") as f:
            f.write(re.sub(r"^Version: .*$", "Version: 99.0", text, flags=re.M))
        out = self.path("asof_99.0.deb")
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", folder, out)
        return out

    def make_root(self):
        """In memory where there is plenty: dpkg syncs every file that it writes."""
        root = self.path("root")
        os.mkdir(root)
        with open("/proc/meminfo", encoding="ascii") as f:
            free_kib = int(re.search(r"^MemAvailable: +(\d+)", f.read(), re.M)[1])
        if free_kib > 4 << 20:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=755", "tmpfs", root],
                           stderr=subprocess.DEVNULL, check=False)
        run("debootstrap", "--variant=minbase", "bookworm", root, mirror(), timeout=900)
        return root

    def test_package(self):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            # One waits for the network, the other for the compiler.
            making = pool.submit(self.make_root) if os.geteuid() == 0 else None
            package = self.build()
            self.check_what_is_in_it(package)
            if not making:
                self.skipTest("needs root to install it")
            newer = self.next_version(package)
            root = making.result()
        inside = os.path.join(root, "srv", "build")
        os.makedirs(inside)
        for path in (package, newer):
            shutil.copy(path, inside)
        with open(os.path.join(inside, "steps"), "w", encoding="utf-8") as f:
            f.write(STEPS)
        # No service of anything that is installed there starts.
        policy = os.path.join(root, "usr", "sbin", "policy-rc.d")
        with open(policy, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            if os.path.exists(name):
                shutil.copy(name, root + name)
        for name in sorted(os.listdir("/etc/apt/apt.conf.d")):
            if "proxy" in name.lower():
                shutil.copy(f"/etc/apt/apt.conf.d/{name}", f"{root}/etc/apt/apt.conf.d/")
        fuse = "touch dev/fuse; mount --bind /dev/fuse dev/fuse" if os.path.exists("/dev/fuse") \
            else ":"
        # All mounts and processes of it end with the namespaces.
        out = run("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", f"""
            cd {root}
            mount -t proc proc proc
            mount -t tmpfs none dev
            for name in null zero random urandom; do
                touch dev/$name; mount --bind /dev/$name dev/$name
            done
            {fuse}
            chroot . apt-get -qq update
            exec chroot . sh /srv/build/steps {os.path.basename(package)} {os.path.basename(newer)}""",
                  timeout=900)
        steps = re.findall(r"^== (.*)$", out, re.M)
        self.assertEqual(steps[-1], "done", out)
        if os.path.exists("/dev/fuse"):
            self.assertIn("mount", steps)

    def check_what_is_in_it(self, package):
        tags = subprocess.run(["lintian", "--no-tag-display-limit", package],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False, timeout=300)
        self.assertEqual((tags.returncode, tags.stdout), (0, ""))
        depends = run("dpkg-deb", "-f", package, "Depends")
        for library in ("libfuse3-3", "libsqlite3-0", "libc6", "zlib1g", "libcurl4", "libssh2-1",
                        "libmicrohttpd12"):
            self.assertIn(library, depends)
        folder = self.path("unpacked")
        run("dpkg-deb", "-x", package, folder)
        unit = os.path.join(folder, "lib", "systemd", "system", "asof.service")
        with open(unit, encoding="utf-8") as f:
            text = f.read()
        self.assertIn("ExecStart=/usr/bin/asof run ", text)
        self.assertNotIn("/usr/local", text)
        for path in re.search(r"^ReadWritePaths=(.*)$", text, re.M)[1].split():
            self.assertTrue(path.startswith("-/"), path)  # one that is missing stops no unit
        if not shutil.which("systemd-analyze"):
            return
        judged = run("systemd-analyze", "security", "--offline=true", unit)
        score = float(re.search(r"exposure level for asof\.service: ([0-9.]+)", judged)[1])
        self.assertLessEqual(score, EXPOSURE_MAX)
        print(f"exposure of the unit: {score}")
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        rest = [line for line in verified.stdout.splitlines() if "/usr/bin/asof is not exec" not in line]
        self.assertEqual(rest, [])


if __name__ == "__main__":
    harness.main()
