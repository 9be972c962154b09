#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""The short soaks; tests/soak/soak.py has the long ones."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOAK = os.path.join(HERE, "..", "soak", "soak.py")
os.execv(sys.executable, [sys.executable, SOAK, "short"])
