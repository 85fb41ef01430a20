#!/bin/sh
# Storages under `datacake serve`: full disks, kills, backups, the sqlite3 shell. See storage_test.py. Usage: storage_test.sh BIN_DIR
exec python3 "$(dirname "$0")/storage_test.py" "$@"
