# SPDX-License-Identifier: Apache-2.0
"""BackupManager: the methods and dictionaries of the backup manager that came before asof.

What returned a dictionary with success=False still does so, and does not raise; the other
methods raise AsofError where the program fails.  Paths are given as Path or text.

Times: text as asof reads it (2024-01-15T10:30:00Z, '-5m', 'yesterday 14:30', @1705314600;
without a zone it is UTC), a number (Unix epoch), or a datetime with a zone.  A datetime
without one is refused: datetime.now() means local time, everything here means UTC.
"""

import logging
import os
import sqlite3
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from . import program
from .program import AsofError

logger = logging.getLogger(__name__)

PathLike = Union[str, "os.PathLike[str]"]
Time = Union[str, int, float, datetime]
Result = Dict[str, Any]

TYPES = ("manual", "automated", "safety", "compressed")
_SOURCE_INVALID = "Source database validation failed"
_BACKUP_INVALID = "Backup validation failed"


@dataclass
class BackupConfig:
    """Where things are and how long backups stay.

    s3_bucket, aws_region, enable_litestream and litestream_config are kept for programs that
    give them; where history goes is the business of asof's configuration.
    """

    data_dir: Path
    backup_dir: Path
    retention_days: int = 7
    compressed_retention_days: int = 30
    s3_bucket: Optional[str] = None
    aws_region: str = "us-east-1"
    enable_litestream: bool = True
    litestream_config: Optional[Path] = None


def _time_text(time: Time) -> str:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError("a datetime without zone may mean local time or UTC: use "
                             "time.astimezone() or time.replace(tzinfo=timezone.utc)")
        return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(time, (int, float)):
        return "@%.6f" % time
    return time


def _failure(text: str) -> Result:
    logger.error("%s", text)
    return {"success": False, "error": text}


class BackupManager:
    """Backups of the databases of one backup folder, which is an archive of asof."""

    def __init__(self, config: BackupConfig) -> None:
        self.config = config
        self.setup_directories()

    def setup_directories(self) -> None:
        """Creates the folders of the types."""
        for backup_type in TYPES:
            (Path(self.config.backup_dir) / backup_type).mkdir(parents=True, exist_ok=True)

    # ---- backups ----

    def create_backup(self, db_path: PathLike, backup_type: str = "manual",
                      compress: bool = True, validate: bool = True) -> Result:
        """Backs up one database without stopping its application.

        Returns success, backup_path, manifest_path and metadata (the manifest), or
        success=False and error.
        """
        if not os.path.exists(db_path):
            return _failure("Database not found: %s" % os.fspath(db_path))
        words = ["backup", "--db-path", os.fspath(db_path), "--type", backup_type]
        words += [] if compress else ["--no-compress"]
        words += [] if validate else ["--no-validate"]
        try:
            result = self._run(words, (program.DONE, program.UNREACHABLE))
        except AsofError as problem:
            if validate and problem.status == program.DAMAGED:
                logger.error("%s", problem)
                source = _SOURCE_INVALID.lower() in str(problem)
                return _failure(_SOURCE_INVALID if source else _BACKUP_INVALID)
            return _failure(str(problem))
        if not result["success"]:
            return _failure(result["error"])
        logger.info("Backup created: %s", result["backup_path"])
        for place in result.get("sent", []):
            if place["error"]:
                logger.warning("not sent to %s yet: %s", place["destination"], place["error"])
        return {key: result[key] for key in ("success", "backup_path", "manifest_path", "metadata")}

    def restore_database(self, backup_path: PathLike, target_path: PathLike,
                         create_safety_backup: bool = True) -> Result:
        """Puts a backup (.db.gz or .db, whoever made it) into the place of a database.

        Returns success, restored_path, safety_backup (a path or None) and restored_from, or
        success=False and error.  All of the backup is checked before anything is replaced.
        """
        if not os.path.exists(backup_path):
            return _failure("Backup file not found: %s" % os.fspath(backup_path))
        try:
            self._parent(target_path)
            result = self._restore(["--from", os.fspath(backup_path)], target_path,
                                   create_safety_backup)
        except AsofError as problem:
            if problem.status == program.DAMAGED:
                logger.error("%s", problem)
                return _failure(_BACKUP_INVALID)
            return _failure(str(problem))
        except OSError as problem:
            return _failure(str(problem))
        return {**result, "restored_from": os.fspath(backup_path)}

    def list_backups(self, backup_type: Optional[str] = None) -> Dict[str, List[Dict[str, Any]]]:
        """The backups by type, newest first; of one type, if one is given."""
        backups = self._run(["list"])["backups"]
        types = [backup_type] if backup_type else TYPES
        return {name: list(backups.get(name, [])) for name in types}

    def cleanup_old_backups(self) -> Result:
        """Removes what is older than the configuration's days; safety backups too.

        The newest good backup of a database stays, however old it is.
        """
        days = {name: self.config.retention_days for name in TYPES}
        days["compressed"] = self.config.compressed_retention_days
        words = ["cleanup"]
        for name, n in days.items():
            words += ["--days", "%s=%d" % (name, n)]
        result = self._run(words)["backups"]
        logger.info("Cleaned up %s files, freed %s", result["total_files"],
                    result["space_freed_human"])
        return {key: result[key] for key in ("cleaned_files", "total_files", "space_freed_bytes",
                                             "space_freed_human")}

    def validate_all_backups(self) -> Result:
        """Reads every backup to its last byte and checks the database in it."""
        result = self._run(["validate"], accept=(program.DONE, program.DAMAGED))["backups"]
        logger.info("Validated %s backups: %s valid, %s invalid", result["total_backups"],
                    result["valid_backups"], result["invalid_backups"])
        return dict(result)

    def get_backup_statistics(self) -> Result:
        """Counts, sizes, oldest, newest, and what the disk has left."""
        return dict(self._run(["stats"])["backups"])

    # ---- any moment ----

    def commits(self, database: Optional[PathLike] = None, since: Optional[Time] = None,
                until: Optional[Time] = None, limit: Optional[int] = None
                ) -> List[Dict[str, Any]]:
        """The commits of a database, oldest first: txid, time, pages, bytes, database_bytes,
        lineage, healed (the first after a gap in what was captured).  `limit` keeps the last.
        """
        words = ["log", self._database(database)]
        words += [] if since is None else ["--since", _time_text(since)]
        words += [] if until is None else ["--until", _time_text(until)]
        words += [] if limit is None else ["--limit", str(limit)]
        try:
            entries = self._run(words)["commits"]
        except AsofError as problem:
            # A span without commits is no error, an unknown database was found above.
            if problem.status == program.NOT_FOUND:
                return []
            raise
        return [entry for entry in entries if "txid" in entry]

    def restore_at(self, time: Time, target_path: Optional[PathLike] = None,
                   database: Optional[PathLike] = None,
                   create_safety_backup: bool = True) -> Result:
        """Puts the state as of `time` into place; 'latest' is the newest.

        The target is the database's place under data_dir if it lies there, else where the
        archive says that it was.  Returns what restore_database() returns.
        """
        try:
            name = self._database(database)
            target = target_path if target_path is not None else self._place(name)
            if target is not None:
                self._parent(target)
            result = self._restore([*self._moment(time), "--db", name], target,
                                   create_safety_backup)
        except (AsofError, OSError, ValueError) as problem:
            return _failure(str(problem))
        return {**result, "restored_from": "%s as of %s" % (name, _time_text(time))}

    def open_at(self, time: Time, database: Optional[PathLike] = None) -> sqlite3.Connection:
        """A read-only connection to the state as of `time`, which no later commit changes.

        The state is restored, with its checksum, into a file in the temporary folder
        ($TMPDIR, else /tmp) that has no name any more once it is open: it takes the room of
        the database until the connection is closed, and is gone then, however the program
        ends.  A mount (asof mount) opens a moment without that copy.
        """
        with tempfile.TemporaryDirectory(prefix="asof-") as folder:
            path = os.path.join(folder, "past.db")
            self._run(["restore", *self._moment(time), "--db", self._database(database),
                       "-o", path])
            # Immutable: nothing but the file itself is opened, so that it needs no name.
            connection = sqlite3.connect(Path(path).as_uri() + "?mode=ro&immutable=1", uri=True)
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except BaseException:
                connection.close()
                raise
        return connection

    # ---- within ----

    def _run(self, words: List[str], accept: Tuple[int, ...] = (program.DONE,)) -> Result:
        return program.run([*words, "--archive", os.fspath(self.config.backup_dir)], accept)

    @staticmethod
    def _parent(target: PathLike) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def _moment(time: Time) -> List[str]:
        text = _time_text(time)
        return ["--latest"] if text == "latest" else ["--at", text]

    def _restore(self, which: List[str], target: Optional[PathLike], safety: bool) -> Result:
        words = ["restore", *which, "--force", "--validate"]
        words += [] if target is None else ["-o", os.fspath(target)]
        words += [] if safety else ["--no-safety"]
        result = self._run(words)
        restored = os.fspath(target) if target is not None else result["target"]
        logger.info("Database restored to %s", restored)
        holder = result.get("still_open_in")
        if holder:
            logger.warning("%s (process %s) goes on with the old file: restart it",
                           holder["command"], holder["pid"])
        return {"success": True, "restored_path": restored,
                "safety_backup": result.get("safety_backup")}

    def _names(self) -> List[str]:
        return [entry["database"] for entry in self._run(["list"])["databases"]]

    def _database(self, wanted: Optional[PathLike]) -> str:
        """The name in the archive: as given, or that of a path with or without its ending.
        Without one it is the only database, else futures_trades."""
        names = self._names()
        if wanted is None and len(names) == 1:
            return names[0]
        base = os.path.basename(os.fspath(wanted)) if wanted is not None else "futures_trades.db"
        for name in (base, os.path.splitext(base)[0], base + ".db"):
            if name in names:
                return name
        there = ", ".join(names) if names else "none"
        raise AsofError("no history of %s in %s (there is: %s)"
                        % (base, os.fspath(self.config.backup_dir), there), program.NOT_FOUND)

    def _place(self, name: str) -> Optional[Path]:
        base = name if name.endswith(".db") else name + ".db"
        path = Path(self.config.data_dir) / "db" / base
        return path if path.exists() else None
