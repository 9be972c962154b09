#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""The short soaks; tests/soak/soak.py has the long ones."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOAK = os.path.join(HERE, "..", "soak", "soak.py")
NAMES = "plain followed page-size-512 page-size-4096 page-size-65536 shrinking killed away reopened " \
        "unsynced unsynced-strict loaded-start full-disk full-disk-killed new-page-size " \
        "large-transactions"
os.execv(sys.executable, [sys.executable, SOAK, *NAMES.split()])
