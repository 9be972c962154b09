#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""backup_manager for those who have this folder, or a link to this file, on sys.path, or run it.

As a module it stands for the package in python/backup_manager.
"""

import os
import sys

__path__ = [os.path.join(os.path.dirname(os.path.realpath(__file__)), "python", "backup_manager")]

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__path__[0]))
    from backup_manager.cli import main
    sys.exit(main())

from backup_manager.manager import BackupConfig, BackupManager  # noqa: E402
from backup_manager.program import AsofError  # noqa: E402

__all__ = ["AsofError", "BackupConfig", "BackupManager"]
