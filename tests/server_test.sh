#!/bin/sh
# The command as users meet it: real processes, real files, real kills. See server_test.py. Usage: server_test.sh BIN_DIR
exec python3 "$(dirname "$0")/server_test.py" "$@"
