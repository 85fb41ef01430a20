#!/bin/sh
# What `datacake sim` writes: pictures that are well-formed XML, a ledger that adds up, every interleaving of a small case. And what must not
# depend on the machine: a run with other addresses, another locale, another time zone and a filled heap is the same run.
set -eu
datacake=$1/datacake
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sim() { "$datacake" sim --progress none "$@"; }

sim --seed 5 --nodes 3 --seconds 6 --writes 40 --svg "$work/run.svg" >"$work/first"
python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$work/run.svg"
[ "$(wc -c <"$work/run.svg")" -lt 4194304 ]

sim --seeds 2 --seconds 6 --writes 20 --ledger "$work/ledger" --commit one >/dev/null
sim --seeds 3 --from 9 --seconds 6 --writes 20 --ledger "$work/ledger" --commit two | tail -n 1 >"$work/sums"
grep -q '^ledger: 5 seeds in 2 runs since .*, 0 failed$' "$work/sums"
grep -q ' two 9 3 0 --seconds 6 --writes 20$' "$work/ledger"
echo nonsense >"$work/none"
if sim --seeds 1 --seconds 3 --writes 1 --ledger "$work/none" >/dev/null 2>&1; then
    echo "a file that is no ledger is taken for one"
    exit 1
fi

sim --explore purges=0,forgets=0,crashes=0 --states 100000 | grep -q '^[0-9]* states, [0-9]* transitions, .*all there are$'

hash() { sed -n 's/.*hash \([0-9a-f]*\)$/\1/p' "$1"; }
LC_ALL=C TZ=Asia/Tokyo MALLOC_PERTURB_=165 MALLOC_ARENA_MAX=1 MALLOC_TOP_PAD_=1048576 FILLER=$(head -c 3000 /dev/zero | tr '\0' x) \
    sim --seed 5 --nodes 3 --seconds 6 --writes 40 >"$work/second"
[ -n "$(hash "$work/first")" ]
if [ "$(hash "$work/first")" != "$(hash "$work/second")" ]; then
    echo "two runs of one seed differ: $(hash "$work/first") $(hash "$work/second")"
    exit 1
fi
