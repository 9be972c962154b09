#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Backs up the databases of a project, and looks after the backups: asof under the commands of
# the script that did so before.
set -euo pipefail

# shellcheck source=tools/lib/old-ways.sh
. "$(dirname "$(readlink -f "$0")")/lib/old-ways.sh"

usage() {
    cat <<EOF
Database backup script

Usage: $0 [COMMAND]

Commands:
    backup [--db-path FILE]...
                   Back up both databases, or those given, into manual/ (default)
    validate       Read every backup and check the database in it
    list           List the newest backups
    cleanup        Remove old backups: manual, automated after 7 days, compressed after 30
    stats          Show counts and sizes
    help           Show this

Environment variables:
    DATA_DIR       Data directory (default: ../data)
    BACKUP_DIR     Backup directory (default: ../backups)

Examples:
    $0 backup
    $0 backup --db-path data/db/futures_trades.db
    $0 validate

Exit status: 0 all is well, 1 anything else.
EOF
}

# backup_one LABEL FILE
backup_one() {
    log INFO "Creating backup: $1 ($2)"
    local status=0 path=''
    run_asof backup --json --archive "$BACKUP_DIR" --type manual --db-path "$2" || status=$?
    if [ "$status" -eq 0 ] || [ "$status" -eq 5 ]; then path=$(json_text backup_path); fi
    if [ -n "$path" ]; then
        log SUCCESS "$1 backup created: $path"
        [ "$status" -eq 0 ] || log WARN "$1 backup: $problem" # not sent to a destination yet
        return 0
    fi
    log ERROR "$1 backup failed: $problem"
    return 1
}

cmd_backup() {
    local paths=() path failed=0
    while [ $# -gt 0 ]; do
        case $1 in
            --db-path)
                [ $# -gt 1 ] || wrong_usage "Option --db-path needs a file"
                paths+=("$2")
                shift
                ;;
            --db-path=*) paths+=("${1#*=}") ;;
            *) wrong_usage "Unknown argument: $1" ;;
        esac
        shift
    done
    need_asof
    make_directories
    log INFO "Starting manual backup"
    if [ ${#paths[@]} -gt 0 ]; then
        for path in "${paths[@]}"; do
            if [ -f "$path" ]; then
                backup_one "Database" "$path" || failed=1
            else
                log ERROR "Database not found: $path"
                failed=1
            fi
        done
    else
        if [ -f "$DB_PATH" ]; then
            backup_one "Main database" "$DB_PATH" || failed=1
        else
            log ERROR "Main database not found at $DB_PATH"
            failed=1
        fi
        if [ -f "$OHLC_DB_PATH" ]; then
            backup_one "OHLC cache" "$OHLC_DB_PATH" || failed=1
        else
            log INFO "OHLC cache database not found (normal for new installations)"
        fi
    fi
    [ $failed = 0 ] || return 1
    log SUCCESS "manual backup completed successfully"
}

cmd_validate() {
    local status=0 verdict file invalid=0
    need_asof
    make_directories
    log INFO "Validating all backup files"
    run_asof validate --json --archive "$BACKUP_DIR" || status=$?
    while IFS=$'\t' read -r verdict file; do
        [ -n "$verdict" ] || continue
        if [ "$verdict" = true ]; then
            log SUCCESS "Backup $(basename "$file") is valid"
        else
            log ERROR "Backup $(basename "$file") validation failed: $file"
            invalid=$((invalid + 1))
        fi
    done <<<"$(verdicts)"
    if [ $invalid -gt 0 ]; then
        log ERROR "$invalid backup(s) failed validation"
        return 1
    fi
    if [ $status != 0 ]; then
        log ERROR "Validation failed: $problem"
        return 1
    fi
    log SUCCESS "All backups validated successfully"
}

# true or false, and the file, of each backup that was looked at.
verdicts() {
    printf '%s\n' "$output" | awk '
        /^ *"file": / {
            file = $0
            sub(/^ *"file": "/, "", file)
            sub(/",?$/, "", file)
            gsub(/\\"/, "\"", file)
            gsub(/\\\\/, "\\", file)
        }
        /^ *"valid": / { print (/true/ ? "true" : "false") "\t" file }'
}

cmd_list() {
    need_asof
    make_directories
    log INFO "Available backups:"
    if ! read_backups; then
        log ERROR "$problem"
        return 1
    fi
    heading "$BLUE" "Manual Backups:"
    print_list "$(backups_of manual)" 10 "No manual backups found"
    heading "$BLUE" "Automated Backups:"
    print_list "$(backups_of automated)" 10 "No automated backups found"
    heading "$BLUE" "Litestream Backups:"
    print_list "$(replicas)" 5 "No Litestream backups found"
}

# As ever, whatever LOCAL_RETENTION_DAYS says; safety backups stay.
KEEP=(--days manual=7 --days automated=7 --days compressed=30)

cmd_cleanup() {
    local file
    need_asof
    make_directories
    log INFO "Cleaning up old backups"
    if ! run_asof cleanup --json --archive "$BACKUP_DIR" "${KEEP[@]}"; then
        log ERROR "Backup cleanup failed: $problem"
        return 1
    fi
    # Without those that it names because they stay.
    output=$(printf '%s\n' "$output" | sed '/^ *"kept": \[/,$d')
    json_text file | while IFS= read -r file; do
        log INFO "Removed: $(basename "$file")"
    done
    log SUCCESS "Backup cleanup completed"
}

cmd_stats() {
    local total
    need_asof
    make_directories
    if ! read_backups; then
        log ERROR "$problem"
        return 1
    fi
    heading "$BLUE" "Backup Statistics:"
    echo "===================="
    echo "Manual backups: $(backups_of manual | wc -l)"
    echo "Automated backups: $(backups_of automated | wc -l)"
    total=$(printf '%s\n' "$backups" | awk -F '\t' '{ sum += $3 } END { printf "%.0f", sum }')
    echo "Total backup size: $(numfmt --to=iec "$total")"
    echo "Backup directory usage:"
    du -sh "$BACKUP_DIR" 2>/dev/null || echo "  Cannot calculate usage"
    if [ -n "$backups" ]; then
        printf '%s\n' "$backups" | sort -t $'\t' -k 4,4r -s | head -n 1 |
            while IFS=$'\t' read -r _ path _ created; do
                echo "Latest backup: $(basename "$path")"
                echo "Created: ${created%%.*}" | sed 's/\([0-9]\)T\([0-9]\)/\1 \2/'
            done
    fi
}

wrong_usage() {
    log ERROR "$1"
    usage
    exit 1
}

main() {
    local command=${1:-backup}
    [ $# -eq 0 ] || shift
    case $command in
        backup | validate | list | cleanup | stats) log_to backup.log ;;
        help | --help | -h)
            usage
            return
            ;;
        *)
            log_to backup.log
            wrong_usage "Unknown command: $command"
            ;;
    esac
    [ "$command" = backup ] || [ $# -eq 0 ] || wrong_usage "Unknown argument: $1"
    "cmd_$command" "$@"
}

main "$@"
