#!/bin/sh
# Faults and load on real processes: see soak/soak.py. Usage: soak_test.sh BIN_DIR [DURATION_S]; CI gives it 120.
soak="$(dirname "$0")/soak"
python3 -B "$soak/history_test.py" || exit 1
exec python3 -B "$soak/soak.py" "$1" --duration-s "${2:-${DATACAKE_SOAK_S:-120}}"
