# SPDX-License-Identifier: Apache-2.0
"""The module as a program, with the arguments and exit statuses that it had before asof."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

from .manager import BackupConfig, BackupManager
from .program import AsofError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backup_manager",
                                     description="Backups of SQLite databases, through asof.")
    parser.add_argument("command", choices=list(COMMANDS), help="what to do")
    parser.add_argument("--data-dir", type=Path, default=Path.cwd() / "data",
                        help="where the databases are (default: ./data)")
    parser.add_argument("--backup-dir", type=Path, default=Path.cwd() / "backups",
                        help="where the backups are (default: ./backups)")
    parser.add_argument("--db-path", type=Path, help="backup: the database")
    parser.add_argument("--backup-path", type=Path, help="restore: the backup")
    parser.add_argument("--target-path", type=Path, help="restore: where to")
    parser.add_argument("--backup-type", default="manual", help="manual, automated or safety")
    parser.add_argument("--no-compress", action="store_true", help="write a plain .db")
    parser.add_argument("--no-validate", action="store_true", help="check neither before nor after")
    return parser


def _size(size_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size_bytes < 1024.0:
            return "%.1f %s" % (size_bytes, unit)
        size_bytes /= 1024.0
    return "%.1f PB" % size_bytes


def _backup(manager: BackupManager, args: argparse.Namespace) -> int:
    if not args.db_path:
        print("Error: --db-path required for backup command")
        return 1
    result = manager.create_backup(args.db_path, args.backup_type, not args.no_compress,
                                   not args.no_validate)
    if not result["success"]:
        print("Backup failed: %s" % result["error"])
        return 1
    print("Backup created: %s" % result["backup_path"])
    return 0


def _restore(manager: BackupManager, args: argparse.Namespace) -> int:
    if not args.backup_path or not args.target_path:
        print("Error: --backup-path and --target-path required for restore command")
        return 1
    result = manager.restore_database(args.backup_path, args.target_path)
    if not result["success"]:
        print("Restore failed: %s" % result["error"])
        return 1
    print("Database restored to: %s" % result["restored_path"])
    return 0


def _list(manager: BackupManager, args: argparse.Namespace) -> int:
    for backup_type, backups in manager.list_backups().items():
        print("\n%s Backups:" % backup_type.upper())
        print("-" * 40)
        for backup in backups:
            print("  %(filename)s (%(size_human)s) - %(created_at)s" % backup)
        if not backups:
            print("  No backups found")
    return 0


def _cleanup(manager: BackupManager, args: argparse.Namespace) -> int:
    result = manager.cleanup_old_backups()
    print("Cleaned up %(total_files)d files, freed %(space_freed_human)s" % result)
    return 0


def _validate(manager: BackupManager, args: argparse.Namespace) -> int:
    """Unlike before, an invalid backup is a failure."""
    result = manager.validate_all_backups()
    print("Validated %(total_backups)d backups: %(valid_backups)d valid, "
          "%(invalid_backups)d invalid" % result)
    for detail in result["validation_details"]:
        if not detail["valid"]:
            print("  invalid: %s" % detail["file"])
    return 1 if result["invalid_backups"] else 0


def _stats(manager: BackupManager, args: argparse.Namespace) -> int:
    stats = manager.get_backup_statistics()
    print("\nBackup Statistics:")
    print("Total backups: %d" % stats["total_backups"])
    print("Total size: %s" % _size(stats["total_size_bytes"]))
    for backup_type, of_type in stats["backup_types"].items():
        print("%s: %d backups, %s" % (backup_type, of_type["count"], _size(of_type["size_bytes"])))
    return 0


COMMANDS: Dict[str, Callable[[BackupManager, argparse.Namespace], int]] = {
    "backup": _backup, "restore": _restore, "list": _list, "cleanup": _cleanup,
    "validate": _validate, "stats": _stats,
}


def main(argv: Optional[List[str]] = None) -> int:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    try:
        manager = BackupManager(BackupConfig(data_dir=args.data_dir, backup_dir=args.backup_dir))
        return COMMANDS[args.command](manager, args)
    except (AsofError, OSError) as problem:
        print("backup_manager: %s" % problem, file=sys.stderr)
        return 1
