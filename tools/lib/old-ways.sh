#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What backup-database.sh, restore-database.sh and setup-litestream.sh share; sourced by them.
#
# PROJECT is the folder above the one that the script was started from, which may be a link:
# PROJECT/{scripts,config,data,backups}.  DATA_DIR and BACKUP_DIR may say otherwise.
# BACKUP_DIR is an archive of asof.
# shellcheck disable=SC2034 # what is set here is used there

# The folder of the scripts themselves, and that of their links.
tools=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
script_dir=$(cd "$(dirname "$0")" && pwd)
PROJECT_ROOT=$(dirname "$script_dir")
DATA_DIR=${DATA_DIR:-$PROJECT_ROOT/data}
BACKUP_DIR=${BACKUP_DIR:-$PROJECT_ROOT/backups}
export DATA_DIR BACKUP_DIR

DB_PATH=$DATA_DIR/db/futures_trades.db
OHLC_DB_PATH=$DATA_DIR/db/ohlc_cache.db
CONFIG_FILE=$PROJECT_ROOT/config/litestream.yml

RED='' GREEN='' YELLOW='' BLUE='' NC=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    RED=$'\033[0;31m' GREEN=$'\033[0;32m' YELLOW=$'\033[1;33m' BLUE=$'\033[0;34m' NC=$'\033[0m'
fi

# ---- the log ----

LOG_FILE=

# log_to NAME: from now on lines go to DATA_DIR/logs/NAME, too.
log_to() {
    LOG_FILE=$DATA_DIR/logs/$1
    if ! mkdir -p "$DATA_DIR/logs" 2>/dev/null || ! : 2>/dev/null >>"$LOG_FILE"; then
        LOG_FILE=
        log WARN "Cannot write $DATA_DIR/logs/$1: nothing is logged there"
    fi
}

# log LEVEL TEXT...: errors go to standard error as well, but not to one terminal twice.
log() {
    local level=$1 color=$BLUE stamp
    shift
    stamp=$(date '+%Y-%m-%d %H:%M:%S')
    [ -z "$LOG_FILE" ] || printf '[%s] [%s] %s\n' "$stamp" "$level" "$*" >>"$LOG_FILE"
    case $level in
        ERROR)
            [ -t 1 ] && [ -t 2 ] || printf '[%s] [%s] %s\n' "$stamp" "$level" "$*"
            if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
                printf '\033[0;31m[%s]\033[0m %s\n' "$level" "$*" >&2
            else
                printf '[%s] %s\n' "$level" "$*" >&2
            fi
            return
            ;;
        WARN) color=$YELLOW ;;
        SUCCESS) color=$GREEN ;;
    esac
    printf '[%s] %s[%s]%s %s\n' "$stamp" "$color" "$level" "$NC" "$*"
}

# heading COLOR TEXT
heading() {
    printf '\n%s%s%s\n' "$1" "$2" "$NC"
}

# ---- the program ----

# Sets asof to $ASOF, the one in PATH, or the one built or installed beside these scripts.
find_asof() {
    local there
    asof=${ASOF:-$(command -v asof || :)}
    for there in "$tools/../build/tools/asof" "$tools/../../bin/asof"; do
        [ -n "$asof" ] || [ ! -x "$there" ] || asof=$(readlink -f "$there")
    done
    [ -n "$asof" ]
}

need_asof() {
    find_asof && return
    log ERROR "asof not found: neither ASOF nor PATH names it (setup-litestream.sh install)"
    exit 1
}

# run_asof WORDS...: its output in $output, the line of its error in $problem, its status.
run_asof() {
    local status=0 errors
    errors=$(mktemp) || return
    output=$("$asof" "$@" 2>"$errors") || status=$?
    problem=$(sed -n 's/^asof: //p' "$errors" | tail -n 1)
    [ -n "$problem" ] || problem=$(tail -n 1 "$errors")
    [ -n "$problem" ] || problem="asof ended with status $status"
    rm -f "$errors"
    return "$status"
}

# asof as the program `litestream`.
litestream() {
    (exec -a litestream "$asof" "$@")
}

# ---- JSON of asof: one key on a line, texts with few escapes ----

# json_text KEY: each value of that key in $output, a line each.
json_text() {
    printf '%s\n' "$output" | sed -n 's/^ *"'"$1"'": "\(.*\)",\{0,1\}$/\1/p' |
        sed 's/\\\(["\\\/]\)/\1/g'
}

# Lines of TYPE, path, size in bytes and time of each backup, with tabs, newest first in each type.
read_backups() {
    run_asof list --json --archive "$BACKUP_DIR" || return
    backups=$(printf '%s\n' "$output" | awk '
        function value(line) {
            sub(/^ *"[^"]*": "?/, "", line)
            sub(/"?,?$/, "", line)
            gsub(/\\"/, "\"", line)
            gsub(/\\\\/, "\\", line)
            return line
        }
        /^ *"(manual|automated|safety|compressed)": \[/ { split($0, part, "\""); type = part[2] }
        /^ *\{/ { path = size = created = "" }
        /^ *"path": / { path = value($0) }
        /^ *"size_bytes": / { size = value($0) }
        /^ *"created_at": / { created = value($0) }
        /^ *\}/ { if (type != "" && path != "") print type "\t" path "\t" size "\t" created; path = "" }
        /^ *\]/ { type = "" }')
}

# backups_of TYPE: paths, newest first.
backups_of() {
    printf '%s\n' "$backups" | awk -F '\t' -v type="$1" '$1 == type { print $2 }'
}

# The names under BACKUP_DIR/local: histories, and replicas of Litestream's.
replicas() {
    local path
    for path in "$BACKUP_DIR"/local/*; do
        [ ! -e "$path" ] || printf '%s\n' "$path"
    done
}

# print_list LINES MAX NONE: the first MAX lines (0: all), or the text NONE.
print_list() {
    local n
    if [ -z "$1" ]; then
        printf '  %s\n' "$3"
        return
    fi
    n=$(printf '%s\n' "$1" | wc -l)
    if [ "$2" -gt 0 ] && [ "$n" -gt "$2" ]; then
        printf '%s\n' "$1" | head -n "$2"
        printf '  ... and %d more\n' $((n - $2))
    else
        printf '%s\n' "$1"
    fi
}

make_directories() {
    mkdir -p "$BACKUP_DIR"/{local,manual,automated,safety,compressed} "$DATA_DIR/logs"
}

# ---- questions ----

# ask QUESTION: 0 yes, 1 no, 2 nobody answered.  A pipe has its answer ready; a terminal waits.
ask() {
    local reply='' patience=()
    [ -t 0 ] || patience=(-t 5)
    printf '%s (y/N): ' "$1"
    if ! read -r -n 1 "${patience[@]}" reply; then
        printf '\n'
        return 2
    fi
    [ -z "$reply" ] || printf '\n'
    [[ $reply == [Yy] ]]
}
