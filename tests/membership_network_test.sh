#!/bin/sh
# Membership over networks that lose, delay and cut. See membership_network_test.py. Usage: membership_network_test.sh BIN_DIR
# ctest: no-asan no-tsan: it is about times, and what it runs is tested under sanitizers elsewhere
exec python3 "$(dirname "$0")/membership_network_test.py" "$@"
