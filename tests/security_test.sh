#!/bin/sh
# Cluster keys and certificates over real processes. See security_test.py. Usage: security_test.sh BIN_DIR
exec python3 "$(dirname "$0")/security_test.py" "$@"
