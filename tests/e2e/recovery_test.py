#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# runner: timeout=400
"""What the README says to those who come from the old ways, and what to do when it happened:
its blocks of commands are taken out of it and run, literally but for the names below.

And the scenarios as the old system's document spells them.
"""

import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import project  # noqa: E402
import radosgw  # noqa: E402
from project import add_rows, rows_in  # noqa: E402

MOMENT = "2024-01-15T10:30:00"
SHARE = "/usr/local/share/asof"


def readme_blocks(heading):
    """The blocks of commands of a section, in order."""
    with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not section:
        raise AssertionError(f"the README has no section '{heading}'")
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", section.group(1), re.M)
    blocks = [re.sub(r"^    ", "", b, flags=re.M).strip() for b in blocks]
    return [b for b in blocks if b]


class Case(project.ProjectCase):
    """A project of 100 trades at the moment that the README names, then 50 more; the application
    is stopped, nothing runs."""

    def setUp(self):
        super().setUp()
        os.symlink(harness.ASOF, os.path.join(self.bin, "asof"))
        os.symlink(harness.ASOF, os.path.join(self.bin, "litestream"))
        self.make_ohlc()
        self.writers = [self.replicate(db=path, archive=self.backups)
                        for path in (self.main_path, self.at("data/db/ohlc_cache.db"))]
        harness.wait_for("a first snapshot", lambda: len(self.known()) == 2)
        time.sleep(1.1)  # the README's moment has no fraction
        self.moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        time.sleep(1.1)
        add_rows(self.db, 50)
        self.wait_captured()
        self.db.close()
        for writer in self.writers:
            self.assertEqual(writer.stop(), 0, writer.log())
        self.names = {MOMENT: self.moment, SHARE: project.TOOLS}

    def make_ohlc(self):
        db = project.make_database(self.at("data/db/ohlc_cache.db"), 7)
        self.addCleanup(db.close)

    def known(self):
        run = harness.asof("list", "--json", "--archive", self.backups)
        databases = harness.json.loads(run.stdout)["databases"] if run.returncode == 0 else []
        return [d["known_until"] for d in databases if d["last_txid"]]

    def wait_captured(self):
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))
        try:
            harness.wait_for("capture", lambda: [k > now for k in self.known()] == [True, True])
        except AssertionError as late:
            raise AssertionError(f"{late}: {now}, {self.known()}\n" +
                                 "\n".join(w.log() for w in self.writers)) from late

    def run_block(self, block, **env):
        for name, here in self.names.items():
            block = block.replace(name, here)
        return subprocess.run(["bash", "-euxc", block], cwd=self.project, check=False, text=True,
                              env=self.environment(**env), stdin=subprocess.DEVNULL, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run_ok(self, block, **env):
        run = self.run_block(block, **env)
        self.assertEqual(run.returncode, 0, run.stdout)
        return run.stdout

    def forget_safety(self):
        shutil.rmtree(os.path.join(self.backups, "safety"), ignore_errors=True)

    def damage_database(self):
        with open(self.main_path, "r+b") as f:
            f.seek(4096)
            f.write(b"\xaa" * 8192)


class Readme(Case):
    def test_from_the_shell_scripts(self):
        shutil.rmtree(self.at("scripts"))
        os.mkdir(self.at("scripts"))
        self.stub("systemctl", "exit 1")
        block, = readme_blocks("Coming from the shell scripts")
        out = self.run_ok(block)
        self.assertEqual(len(self.files("manual")), 2)
        self.assertIn("[SUCCESS] All backups validated successfully", out)
        self.assertIn("✓ Configuration is valid", out)
        self.assertEqual(rows_in(self.main_path), 100)
        self.assertEqual(os.path.realpath(self.at("scripts/backup_manager.py")),
                         os.path.join(project.TOOLS, "backup_manager.py"))

    def test_from_litestream(self):
        block, = readme_blocks("Coming from Litestream")
        out = self.run_ok(block)
        self.assertIn("configuration is valid", out)
        self.assertRegex(out, r"\nname +generation +lag +start +end\nfile +0{15}1 ")
        self.assertEqual(rows_in(self.at("restored.db")), 100)

    def test_recovery(self):
        damaged, lost, new_machine = readme_blocks("Recovery")
        self.damage_database()
        self.assertIn("\nok\n", self.run_ok(damaged) + "\n")
        self.assertEqual(rows_in(self.main_path), 150)
        self.assertEqual(len(self.files("safety")), 1)

        with harness.sqlite3.connect(self.main_path) as db:
            db.execute("DELETE FROM trades WHERE id % 3 = 0")
        db.close()
        self.assertEqual(rows_in(self.main_path), 100)
        self.run_ok(lost)
        self.assertEqual(rows_in(self.main_path), 133)  # of the first 100 all, of the others 33

        self.assertIn("asof mount", new_machine)  # run below

    def test_new_machine(self):
        """The first one is gone, all of it; the bucket has what was replicated."""
        harness.need_fuse()
        server = radosgw.RadosGateway(self.path("ceph"))
        self.addCleanup(server.stop)
        server.start()
        server.make_bucket("trades")
        url, keys = server.url("trades", "/archive"), server.credentials()
        writers = [self.replicate(url, db=path, archive=self.backups,
                                  prefix=["env", *(f"{k}={v}" for k, v in keys.items())])
                   for path in (self.main_path, self.at("data/db/ohlc_cache.db"))]
        for name in ("futures_trades.db", "ohlc_cache.db"):
            harness.wait_for(f"{name} in the bucket", lambda name=name: harness.asof(
                "wait", name, "--archive", self.backups, "--dest", url, "--timeout",
                "10").returncode == 0, 100)
        for writer in writers:
            self.assertEqual(writer.stop(), 0, writer.log())
        shutil.rmtree(self.project)
        self.project, mounted = self.path("other machine"), self.path("mounted")
        os.makedirs(self.project)
        os.makedirs(mounted)
        self.names["s3://trades/archive?region=eu-west-1"] = url
        self.names["/mnt "] = mounted + " "
        self.addCleanup(subprocess.run, ["fusermount3", "-u", "-q", "-z", mounted], check=False)
        self.run_ok(readme_blocks("Recovery")[2], **keys, ASOF_CACHE_DIR=self.path("cache"))
        self.assertEqual(rows_in(self.at("data/db/futures_trades.db")), 150)
        before = os.path.join(mounted, "at", self.moment, "futures_trades.db")
        self.assertEqual(rows_in(before), 100)
        self.assertEqual(sorted(os.listdir(os.path.join(mounted, "latest"))),
                         ["futures_trades.db", "ohlc_cache.db"])
        run = harness.asof("umount", mounted)
        self.assertEqual(run.returncode, 0, run.stderr)


class OldDocument(Case):
    """The commands of the old document's scenarios, word for word but for the moment."""

    def setUp(self):
        super().setUp()
        for name in ("docker", "docker-compose"):
            self.stub(name, f'[ "$1" = ps ] || echo "{name} $*" >> {self.path("calls")}')

    def calls(self):
        with open(self.path("calls"), encoding="utf-8") as f:
            return f.read().splitlines()

    def test_database_corruption(self):
        self.damage_database()
        out = self.run_ok("""
            docker stop futurestradinglog-app
            ./scripts/restore-database.sh litestream
            sqlite3 data/db/futures_trades.db "PRAGMA integrity_check;"
            docker start futurestradinglog-app""")
        self.assertTrue(("\n" + out).endswith("\nok\n+ docker start futurestradinglog-app\n"), out)
        self.assertEqual(rows_in(self.main_path), 150)
        self.assertEqual(self.calls(), ["docker stop futurestradinglog-app",
                                        "docker start futurestradinglog-app"])

    def test_to_a_moment(self):
        self.run_ok("./scripts/restore-database.sh litestream " + MOMENT)
        self.assertEqual(rows_in(self.main_path), 100)

    def test_accidental_loss(self):
        os.makedirs(os.path.join(self.backups, "manual"))
        path = project.old_backup(os.path.join(self.backups, "manual"), "futures_trades", 42)
        self.names["futures_trades_20240115_143000.db.gz"] = os.path.basename(path)
        out = self.run_ok("""
            docker stop futurestradinglog-app
            ./scripts/restore-database.sh list
            yes | ./scripts/restore-database.sh restore \
                backups/manual/futures_trades_20240115_143000.db.gz
            docker start futurestradinglog-app""")
        self.assertIn(f"Manual Backups:\n{path}\n", out)
        self.assertEqual(rows_in(self.main_path), 42)

    def test_complete_recovery(self):
        bucket = self.path("bucket")
        os.mkdir(bucket)
        path = project.old_backup(bucket, "futures_trades", 42)
        os.rename(path, os.path.join(bucket, "futures_trades.db.gz"))
        self.stub("aws", f'[ "$1 $2 $3" = "s3 sync s3://your-bucket/db/" ] && '
                         f'mkdir -p "$4" && cp {bucket}/*.gz "$4"')
        shutil.rmtree(self.at("data"))
        self.stub("systemctl", "exit 1")
        out = self.run_ok("""
            aws s3 sync s3://your-bucket/db/ ./restored-data/
            gunzip restored-data/*.db.gz
            ./scripts/restore-database.sh restore restored-data/futures_trades.db
            docker-compose -f docker/docker-compose.production.yml up -d
            ./scripts/setup-litestream.sh status""")
        self.assertEqual(rows_in(self.main_path), 42)
        self.assertIn("✓ Main database exists", out)

    def test_restoration_test(self):
        self.run_ok("""
            ./scripts/backup-database.sh backup
            cp backups/manual/futures_trades_*.db.gz latest-backup.db.gz
            ./scripts/restore-database.sh restore latest-backup.db.gz %s
            sqlite3 %s "SELECT COUNT(*) FROM trades;" | grep -x 150
            ./scripts/backup-database.sh validate""" % (2 * (self.path("test-restore.db"),)))

    def test_python_example(self):
        self.run_ok("""python3 - <<'END'
import sys
sys.path.append('scripts')
from backup_manager import BackupManager, BackupConfig
from pathlib import Path

config = BackupConfig(
    data_dir=Path('./data'),
    backup_dir=Path('./backups'),
    retention_days=7
)
manager = BackupManager(config)
result = manager.create_backup(
    db_path=Path('./data/db/futures_trades.db'),
    backup_type='manual',
    compress=True,
    validate=True
)
assert result['success'], result
backups = manager.list_backups()
stats = manager.get_backup_statistics()
assert len(backups['manual']) == stats['total_backups'] == 1
END""")

    def test_validate_the_configuration(self):
        self.run_ok("litestream -config config/litestream.yml validate")


if __name__ == "__main__":
    harness.main()
