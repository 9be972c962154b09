# SPDX-License-Identifier: Apache-2.0
"""Certificates for servers on loopback, by an authority that nobody else trusts."""

import os
import subprocess


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, timeout=60, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Authority:
    """One of our own, and certificates that it signed."""

    def __init__(self, folder):
        self.folder = folder
        self.file = os.path.join(folder, "ca.pem")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "30", "-subj", "/CN=an authority", "-keyout", self.file + ".key", "-out",
                self.file)

    def sign(self, *names):
        """(certificate, key) of a server that has those names."""
        at = os.path.join(self.folder, names[0].replace(":", "-"))
        with open(at + ".ext", "w", encoding="ascii") as f:
            f.write("subjectAltName=" + ",".join(names) + "\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                "/CN=server", "-keyout", at + ".key", "-out", at + ".csr")
        openssl("x509", "-req", "-in", at + ".csr", "-CA", self.file, "-CAkey", self.file + ".key",
                "-CAcreateserial", "-days", "30", "-extfile", at + ".ext", "-out", at + ".pem")
        return at + ".pem", at + ".key"
