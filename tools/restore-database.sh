#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Restores a database of a project from a backup, or to a moment: asof under the commands of
# the script that did so before.
set -euo pipefail

# shellcheck source=tools/lib/old-ways.sh
. "$(dirname "$(readlink -f "$0")")/lib/old-ways.sh"

usage() {
    cat <<EOF
Database restore script

Usage: $0 [COMMAND] [--force]

Commands:
    restore FILE [TARGET]   Restore from a backup, .db.gz or .db, whoever made it
    litestream [TIME]       Restore the state as of TIME, without one the newest
    interactive             Choose from a menu (default)
    list                    List the backups
    help                    Show this

Options:
    --force                 Ask nothing; it may stand anywhere

TARGET is data/db/futures_trades.db unless another is given.  TIME is 2024-01-15T10:30:00, in
UTC, or what else asof reads (-10m, 'yesterday 14:30').  What was there before is kept in
backups/safety.

Environment variables:
    DATA_DIR       Data directory (default: ../data)
    BACKUP_DIR     Backup directory (default: ../backups)

Examples:
    $0 restore backups/manual/futures_trades_20240115_143000.db.gz
    $0 litestream 2024-01-15T10:30:00
    $0 list

Exit status: 0 done, or declined; 1 anything else.
EOF
}

force=false

# confirm QUESTION: goes on after a yes; a no ends the script well, silence badly.
confirm() {
    local status=0
    [ $force = false ] || return 0
    ask "$1" || status=$?
    case $status in
        0) return ;;
        1)
            log INFO "Restore cancelled by user"
            exit 0
            ;;
    esac
    log ERROR "Restore refused: nobody is there to ask '$1' (--force asks nothing)"
    exit 1
}

check_services() {
    local containers=''
    log INFO "Checking for running application services"
    if command -v docker >/dev/null; then
        containers=$(timeout 10 docker ps --format '{{.Names}}' 2>/dev/null |
            grep futurestradinglog || :)
    fi
    if [ -n "$containers" ]; then
        log WARN "Services are running, stop them before a restore: ${containers//$'\n'/ }"
        echo "  docker-compose -f docker/docker-compose.production.yml down"
        echo "  Or: docker stop futurestradinglog-app futurestradinglog-litestream"
        confirm "Continue with restore anyway?"
    fi
    if pgrep -f '(^|[ /])app\.py( |$)' >/dev/null; then
        log WARN "Python application appears to be running"
        confirm "Continue with restore anyway?"
    fi
}

# Who goes on with the old file, from $output; empty: nobody.
still_open_in() {
    printf '%s\n' "$output" | grep -q '"still_open_in": {' || return 0
    printf '%s (process %s)' "$(json_text command)" \
        "$(printf '%s\n' "$output" | sed -n 's/^ *"pid": \([0-9]*\).*/\1/p')"
}

# run_restore TARGET WORDS...: asof restore, and the lines that tell of it.
run_restore() {
    local target=$1 words=() holder text
    shift
    mkdir -p "$(dirname "$target")"
    words=(restore --json --force --validate --archive "$BACKUP_DIR" -o "$target" "$@")
    if ! run_asof "${words[@]}" --dry-run; then
        log ERROR "Restore failed: $problem"
        return 1
    fi
    holder=$(still_open_in)
    if [ -n "$holder" ]; then
        log WARN "The database is open in $holder, which would go on with the old file"
        confirm "Continue with restore anyway?"
    fi
    if ! run_asof "${words[@]}"; then
        log ERROR "Restore failed: $problem"
        return 1
    fi
    text=$(json_text safety_backup)
    [ -z "$text" ] || log SUCCESS "Safety backup created: $text"
    text=$(json_text safety_warning)
    [ -z "$text" ] || log WARN "Present database: $text"
    text=$(json_text set_aside)
    [ -z "$text" ] || log INFO "The old database was also kept as $text"
    chmod 644 "$target"
    log SUCCESS "Database restored successfully: $target"
    log SUCCESS "Restored database integrity check passed"
    holder=$(still_open_in)
    [ -z "$holder" ] || log WARN "Restart $holder: it goes on with the old file"
}

# restore_file FILE TARGET
restore_file() {
    if [ ! -f "$1" ]; then
        log ERROR "Backup file not found: $1"
        return 1
    fi
    log INFO "Starting database restore"
    log INFO "Source: $(basename "$1")"
    log INFO "Target: $2"
    if [ -f "$2" ]; then
        log WARN "Target database already exists: $2"
        confirm "Overwrite existing database?"
    fi
    run_restore "$2" --from "$1"
    log SUCCESS "Database restore completed successfully"
}

# restore_moment TIME, which may be empty
restore_moment() {
    local base name which=(--latest)
    base=$(basename "$DB_PATH")
    log INFO "Restoring from the continuous history"
    if [ -z "$1" ] || [ "$1" = latest ]; then
        log INFO "No timestamp specified, restoring to latest point"
    else
        which=(--at "$1")
    fi
    if ! run_asof list --json --archive "$BACKUP_DIR"; then
        log ERROR "Restore failed: $problem"
        return 1
    fi
    # Its name there, or that without the ending.
    name=$(json_text database | grep -Fx -e "$base" -e "${base%.db}" | sort -r | head -n 1 || :)
    if [ -z "$name" ]; then
        log ERROR "No history of $base in $BACKUP_DIR/local"
        return 1
    fi
    run_restore "$DB_PATH" --db "$name" "${which[@]}"
}

print_backups() {
    local type any=''
    heading "$BLUE" "Available Backups for Restore:"
    echo "================================="
    if ! read_backups; then
        log ERROR "$problem"
        return 1
    fi
    for type in Manual Automated Safety; do
        heading "$YELLOW" "$type Backups:"
        print_list "$(backups_of "${type,,}")" 0 "No ${type,,} backups found"
        any=$any$(backups_of "${type,,}")
    done
    heading "$YELLOW" "Litestream Backups:"
    print_list "$(replicas)" 0 "No Litestream backups found"
    if [ -n "$(replicas)" ]; then
        echo "  Use '$0 litestream [TIME]' for these"
    elif [ -z "$any" ]; then
        heading "$RED" "No backups available for restore"
    fi
}

# read_line PROMPT: into $line; a pipe has it ready, a terminal waits.
read_line() {
    local patience=()
    [ -t 0 ] || patience=(-t 5)
    line=''
    printf '%s' "$1"
    if ! IFS= read -r "${patience[@]}" line && [ -z "$line" ]; then
        printf '\n'
        log ERROR "Nobody is there to choose (restore FILE --force asks nothing)"
        exit 1
    fi
}

# choose_backup TYPE
choose_backup() {
    local files=() i
    mapfile -t files < <(backups_of "$1")
    heading "$BLUE" "${1^} backups:"
    if [ ${#files[@]} -eq 0 ]; then
        log ERROR "No $1 backups found"
        return 1
    fi
    for i in "${!files[@]}"; do
        echo "$((i + 1))) ${files[$i]}"
    done
    while :; do
        read_line "Number (empty cancels): "
        if [ -z "$line" ]; then
            log INFO "Restore cancelled by user"
            return
        fi
        if [[ $line =~ ^[1-9][0-9]{0,8}$ ]] && [ "$line" -le ${#files[@]} ]; then
            restore_file "${files[$line - 1]}" "$DB_PATH"
            return
        fi
        echo "There is no number '$line'"
    done
}

cmd_interactive() {
    [ $# -eq 0 ] || wrong_usage "Unknown argument: $1"
    need_asof
    check_services
    make_directories
    print_backups
    heading "$BLUE" "Select restore option:"
    echo "1) Restore from manual backup"
    echo "2) Restore from automated backup"
    echo "3) Restore from safety backup"
    echo "4) Restore from Litestream"
    echo "5) Cancel"
    read_line "Enter your choice (1-5): "
    case $line in
        1) choose_backup manual ;;
        2) choose_backup automated ;;
        3) choose_backup safety ;;
        4)
            read_line "Enter timestamp (YYYY-MM-DDTHH:MM:SS) or press Enter for latest: "
            restore_moment "$line"
            ;;
        5) log INFO "Restore cancelled by user" ;;
        *)
            log ERROR "Invalid choice"
            return 1
            ;;
    esac
}

cmd_restore() {
    [ $# -gt 0 ] || wrong_usage "Backup file required for restore command"
    [ $# -le 2 ] || wrong_usage "Unknown argument: $3"
    need_asof
    check_services
    make_directories
    restore_file "$1" "${2:-$DB_PATH}"
}

cmd_litestream() {
    [ $# -le 1 ] || wrong_usage "Unknown argument: $2"
    need_asof
    check_services
    make_directories
    restore_moment "${1:-}"
}

cmd_list() {
    [ $# -eq 0 ] || wrong_usage "Unknown argument: $1"
    need_asof
    make_directories
    print_backups
}

wrong_usage() {
    log ERROR "$1"
    usage
    exit 1
}

main() {
    local words=() word command
    for word in "$@"; do
        case $word in
            --force) force=true ;;
            --help | -h) words+=(help) ;;
            --*) words+=("unknown option $word") ;;
            *) words+=("$word") ;;
        esac
    done
    command=${words[0]:-interactive}
    case $command in
        restore | litestream | interactive | list) log_to restore.log ;;
        help)
            usage
            return
            ;;
        *)
            log_to restore.log
            wrong_usage "Unknown command: $command"
            ;;
    esac
    for word in "${words[@]}"; do
        case $word in
            "unknown option "*) wrong_usage "Unknown option: ${word#unknown option }" ;;
        esac
    done
    "cmd_$command" "${words[@]:1}"
}

main "$@"
