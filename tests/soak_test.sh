#!/bin/sh
# Faults and load on real processes: see soak/soak.py. Usage: soak_test.sh BIN_DIR [DURATION_S]; CI gives it 120.
exec python3 -B "$(dirname "$0")/soak/soak.py" "$1" --duration-s "${2:-${DATACAKE_SOAK_S:-60}}"
