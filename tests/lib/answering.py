# SPDX-License-Identifier: Apache-2.0
"""What the HTTP servers of the tests have in common: quiet, one connection for many requests, and
a client that goes away is no error."""

import contextlib
import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(OSError):
            super().handle()
