# SPDX-License-Identifier: Apache-2.0
"""An OpenSSH server of its own on loopback, with SFTP alone."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time

SSHD = "/usr/sbin/sshd"


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Sshd:
    """Started by start(), ended by stop(); the keys lie in `folder`."""

    def __init__(self, folder):
        if not os.path.exists(SSHD) or not shutil.which("ssh-keygen"):
            raise FileNotFoundError("no OpenSSH server here (openssh-server)")
        self.folder = folder
        self.port = free_port()
        self.process = None
        os.makedirs(folder, exist_ok=True)
        for name in ("host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path(name)],
                           check=True, stdin=subprocess.DEVNULL)
        shutil.copy(self.path("user.pub"), self.path("authorized"))
        self.know("host")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        with open(self.path("config"), "w", encoding="ascii") as f:
            f.write(f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.path('host')}\n"
                    f"AuthorizedKeysFile {self.path('authorized')}\nPidFile none\nUsePAM no\n"
                    "StrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
                    "MaxStartups 100\nMaxSessions 100\nSubsystem sftp internal-sftp\n")

    def path(self, name):
        return os.path.join(self.folder, name)

    def know(self, name):
        """Makes that key the one that clients know the host by."""
        with open(self.path(name + ".pub"), encoding="ascii") as f:
            kind, key = f.read().split()[:2]
        with open(self.path("known"), "w", encoding="ascii") as f:
            f.write(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self):
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", self.path("config")],
                                        stdin=subprocess.DEVNULL, start_new_session=True,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.05)
        raise AssertionError("sshd did not come up")

    def children(self):
        """What serves its sessions."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii",
                                                    errors="replace") as f:
                if int(f.read().rsplit(")", 1)[1].split()[3]) == self.process.pid:
                    found.append(int(pid))
        return [pid for pid in found if pid != self.process.pid]

    def cut(self):
        """Ends all sessions in the middle of whatever they do; the server stays."""
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self):
        if self.process:
            self.cut()
            self.process.kill()
            self.process.wait()
            self.process = None

    def text(self, name):
        with open(self.path(name), encoding="ascii") as f:
            return f.read().strip()

    def url(self, path, key="user"):
        return (f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{path}"
                f"?identity={self.path(key)}&known-hosts={self.path('known')}")
