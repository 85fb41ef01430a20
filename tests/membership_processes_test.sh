#!/bin/sh
# Membership of real processes on one machine. See membership_processes_test.py. Usage: membership_processes_test.sh BIN_DIR [N]
# ctest: no-asan no-tsan: it is about times, and what it runs is tested under sanitizers elsewhere
exec python3 "$(dirname "$0")/membership_processes_test.py" "$@"
