#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Sets a project up for continuous replication: asof under the commands of the script that did
# so before.  asof takes the commands of Litestream under the name `litestream`.
set -euo pipefail

# shellcheck source=tools/lib/old-ways.sh
. "$(dirname "$(readlink -f "$0")")/lib/old-ways.sh"

PREFIX=${PREFIX:-/usr/local}
UNIT_DIR=${UNIT_DIR:-/etc/systemd/system}

usage() {
    cat <<EOF
Replication setup script

Usage: $0 [COMMAND]

Commands:
    status      Show what is set up (default)
    install     Install asof, and the name litestream for it, under $PREFIX/bin
    configure   Check config/litestream.yml, make the backup directories
    systemd     Write and enable the unit litestream.service
    test        Replicate a database for some seconds, restore it, count its rows
    full        install, configure, systemd, test, status
    help        Show this

Environment variables:
    DATA_DIR    Data directory (default: ../data)
    BACKUP_DIR  Backup directory (default: ../backups)
    PREFIX      Where to install (default: /usr/local)
    UNIT_DIR    Where units are (default: /etc/systemd/system)

Exit status: 0 all is well, 1 anything else.
EOF
}

# as_root FOLDER COMMAND...: through sudo, where FOLDER is not ours to write.
as_root() {
    local folder=$1
    shift
    if [ -w "$folder" ] || [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        log ERROR "Cannot write $folder, and there is no sudo"
        return 1
    fi
}

# Whether FILE is asof under another name.
is_asof() {
    [ -x "$1" ] && [[ $("$1" version 2>/dev/null) == asof\ * ]]
}

cmd_install() {
    local bin=$PREFIX/bin there status=0
    if ! find_asof; then
        log ERROR "There is no asof to install: build it (meson setup build && ninja -C build)"
        return 1
    fi
    there=$bin/litestream
    if is_asof "$there" && [ -x "$bin/asof" ] && cmp -s "$asof" "$bin/asof"; then
        log SUCCESS "asof is up to date: $("$bin/asof" --version)"
        return 0
    fi
    if [ -e "$there" ] && ! is_asof "$there"; then
        log WARN "$there is another program: $("$there" version 2>/dev/null | head -n 1)"
        ask "Replace it (it stays as litestream.before-asof)?" || status=$?
        if [ $status = 1 ]; then
            log INFO "Installation cancelled by user"
            return 0
        elif [ $status = 2 ]; then
            log ERROR "Not replaced: nobody is there to ask"
            return 1
        fi
        as_root "$bin" mv "$there" "$there.before-asof"
    fi
    log INFO "Installing $asof to $bin"
    [ -d "$bin" ] || as_root "$PREFIX" mkdir -p "$bin"
    # A running one keeps its file: the new one gets the name.
    as_root "$bin" install -m 755 "$asof" "$bin/.asof.new"
    as_root "$bin" mv -f "$bin/.asof.new" "$bin/asof"
    as_root "$bin" ln -sfn asof "$there"
    if ! is_asof "$there"; then
        log ERROR "$there does not run"
        return 1
    fi
    log SUCCESS "asof installed: $("$there" version)"
}

cmd_configure() {
    log INFO "Setting up the configuration"
    need_asof
    if [ ! -f "$CONFIG_FILE" ]; then
        log ERROR "Configuration not found: $CONFIG_FILE"
        return 1
    fi
    log SUCCESS "Configuration exists: $CONFIG_FILE"
    if ! litestream validate -config "$CONFIG_FILE"; then
        log ERROR "Configuration validation failed"
        return 1
    fi
    log SUCCESS "Configuration is valid"
    make_directories
    log SUCCESS "Backup directories created: $BACKUP_DIR"
}

# Percent signs and quotes as systemd wants them.
unit_word() {
    local word=${1//\\/\\\\}
    word=${word//%/%%}
    printf '"%s"' "${word//\"/\\\"}"
}

# The unit of asof run, for the configuration and the folders of this project.
unit_text() {
    EXEC="$(unit_word "$PREFIX/bin/asof") run --config $(unit_word "$CONFIG_FILE")" \
        DATA=$(unit_word "$(absolute "$DATA_DIR")") BACKUPS=$(unit_word "$(absolute "$BACKUP_DIR")") \
        ENVIRONMENT="$(unit_word "DATA_DIR=$(absolute "$DATA_DIR")") \
$(unit_word "BACKUP_DIR=$(absolute "$BACKUP_DIR")")" \
        awk '/^#/ { next }
            /^ExecStart=/ {
                print "ExecStart=" ENVIRON["EXEC"]
                print "Environment=" ENVIRON["ENVIRONMENT"]
                next
            }
            /^ReadWritePaths=/ { $0 = "ReadWritePaths=" ENVIRON["DATA"] " " ENVIRON["BACKUPS"] }
            { print }' "$tools/deploy/asof.service"
}

absolute() {
    (cd "$1" 2>/dev/null && pwd) || printf '%s\n' "$1"
}

cmd_systemd() {
    local unit=$UNIT_DIR/litestream.service
    log INFO "Setting up the systemd service litestream"
    if [ ! -f "$CONFIG_FILE" ]; then
        log ERROR "Configuration not found: $CONFIG_FILE"
        return 1
    fi
    make_directories
    unit_text | as_root "$UNIT_DIR" tee "$unit" >/dev/null
    log INFO "Unit written: $unit"
    if ! command -v systemctl >/dev/null; then
        log ERROR "The unit is not enabled: there is no systemctl"
        return 1
    fi
    if ! as_root "$UNIT_DIR" systemctl daemon-reload ||
        ! as_root "$UNIT_DIR" systemctl enable litestream; then
        log ERROR "The unit is not enabled: systemctl failed"
        return 1
    fi
    log SUCCESS "systemd service litestream created and enabled"
    log INFO "Start it with: systemctl start litestream"
}

# sql DB SQL
sql() {
    if command -v sqlite3 >/dev/null; then
        sqlite3 "$1" "$2"
    else
        python3 -c 'import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2].split(";"):
    for row in db.execute(statement):
        print(*row, sep="|")' "$1" "$2"
    fi
}

test_in() {
    local folder=$1 rows
    cat >"$folder/litestream.yml" <<EOF
dbs:
  - path: $folder/test.db
    replicas:
      - type: file
        path: $folder/replica
        sync-interval: 1s
        snapshot-interval: 10s
EOF
    sql "$folder/test.db" "PRAGMA journal_mode=WAL; CREATE TABLE test (id INTEGER PRIMARY KEY, \
data TEXT); INSERT INTO test (data) VALUES ('test data')" >/dev/null
    log INFO "Starting test replication (10 seconds at most)"
    "$asof" run --config "$folder/litestream.yml" >"$folder/log" 2>&1 &
    replicator=$!
    wait_rows "$folder" 1 || return
    sql "$folder/test.db" "INSERT INTO test (data) VALUES ('additional test data')"
    wait_rows "$folder" 2 || return
    kill "$replicator"
    if ! wait "$replicator"; then
        log ERROR "Test failed: the replicator did not end well"
        tail -n 5 "$folder/log" >&2
        return 1
    fi
    replicator=
    rows=$(rows_restored "$folder" || :)
    if [ "$rows" != 2 ]; then
        log ERROR "Test failed: expected 2 rows, got '$rows'"
        return 1
    fi
}

# rows_restored FOLDER: how many rows a restore has now.
rows_restored() {
    rm -f "$1"/restored.db*
    litestream restore -config "$1/litestream.yml" -o "$1/restored.db" "$1/test.db" \
        >"$1/restore.log" 2>&1 || return
    sql "$1/restored.db" "SELECT count(*) FROM test"
}

# wait_rows FOLDER N: until a restore has so many rows; five seconds.
wait_rows() {
    local i rows=''
    for ((i = 0; i < 50; i++)); do
        kill -0 "$replicator" 2>/dev/null || break
        rows=$(rows_restored "$1" || :)
        [ "$rows" != "$2" ] || return 0
        sleep 0.1
    done
    log ERROR "Test failed: expected $2 row(s) in a restore, got '$rows'"
    tail -n 5 "$1/log" "$1/restore.log" >&2 || :
    return 1
}

replicator=
scratch=
end_test() {
    [ -z "$replicator" ] || kill "$replicator" 2>/dev/null || :
    [ -z "$scratch" ] || rm -rf "$scratch"
}

cmd_test() {
    need_asof
    log INFO "Testing replication"
    scratch=$(mktemp -d)
    trap end_test EXIT
    if ! test_in "$scratch"; then
        log ERROR "Test failed"
        return 1
    fi
    log SUCCESS "Test completed successfully"
}

tick() {
    printf '%s✓%s %s\n' "$GREEN" "$NC" "$1"
}

cross() {
    printf '%s✗%s %s\n' "$RED" "$NC" "$1"
}

note() {
    printf '%s!%s %s\n' "$YELLOW" "$NC" "$1"
}

cmd_status() {
    heading "$BLUE" "Litestream Setup Status:"
    echo "========================="
    if find_asof; then
        tick "asof installed: $("$asof" --version) ($asof)"
    else
        cross "asof not installed"
    fi
    if [ -f "$CONFIG_FILE" ]; then
        tick "Configuration file exists: $CONFIG_FILE"
        if [ -n "$asof" ] && litestream validate -config "$CONFIG_FILE" >/dev/null 2>&1; then
            tick "Configuration is valid"
        else
            cross "Configuration validation failed"
        fi
    else
        cross "Configuration file missing: $CONFIG_FILE"
    fi
    if [ -d "$BACKUP_DIR" ]; then
        tick "Backup directories exist: $BACKUP_DIR"
    else
        cross "Backup directories missing: $BACKUP_DIR"
    fi
    if systemctl is-enabled litestream >/dev/null 2>&1; then
        tick "Systemd service enabled"
        if systemctl is-active litestream >/dev/null 2>&1; then
            tick "Systemd service running"
        else
            note "Systemd service not running"
        fi
    else
        cross "Systemd service not enabled"
    fi
    if [ -f "$DB_PATH" ]; then
        tick "Main database exists: $DB_PATH"
    else
        note "Main database not found: $DB_PATH"
    fi
}

cmd_full() {
    make_directories
    cmd_install
    cmd_configure
    cmd_systemd
    cmd_test
    cmd_status
}

main() {
    local command=${1:-status}
    case $command in
        install | configure | systemd | test | status | full) ;;
        help | --help | -h)
            usage
            return
            ;;
        *)
            log ERROR "Unknown command: $command"
            usage
            exit 1
            ;;
    esac
    if [ $# -gt 1 ]; then
        log ERROR "Unknown argument: $2"
        usage
        exit 1
    fi
    "cmd_$command"
}

main "$@"
