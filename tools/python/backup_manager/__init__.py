# SPDX-License-Identifier: Apache-2.0
"""Backups of SQLite databases, and any past moment of them, through the program asof.

    from pathlib import Path
    from backup_manager import BackupManager, BackupConfig

    manager = BackupManager(BackupConfig(data_dir=Path("data"), backup_dir=Path("backups")))
    result = manager.create_backup(Path("data/db/futures_trades.db"))
    with contextlib.closing(manager.open_at("2024-01-15T10:30:00")) as past:
        print(past.execute("SELECT count(*) FROM trades").fetchone())

The program is $ASOF, else `asof` in PATH, else the one built beside this folder.
"""

from .manager import BackupConfig, BackupManager
from .program import AsofError

__all__ = ["AsofError", "BackupConfig", "BackupManager"]
