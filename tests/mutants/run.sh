#!/bin/bash
# run.sh [-n SEEDS] [-f FROM] [-j JOBS] [NAME...]: breaks the code in each of the ways of `list`, in a copy, and says how many seeds of
# the simulator it takes to notice. What whole clusters do not notice of crdt and gossip in 150 seeds: how many schedules of
# that layer, and how many states of the explorer. Prints the table of docs/simulation.md. Ends with 1 when a mutant lives
# through all its seeds (5000 by default) or no longer applies.
set -u
seeds=5000 from=1 jobs=$(nproc)
while getopts n:f:j: option; do
    case $option in
    n) seeds=$OPTARG ;;
    f) from=$OPTARG ;;
    j) jobs=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
few=$((seeds < 150 ? seeds : 150)) # of those that their own layers catch
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$root/src" "$root/include" "$work"
cp "$here/hunt.c" "$work"
cd "$work" || exit 2

cc=${CC:-cc}
flags="-std=c11 -O1 -g -D_GNU_SOURCE -DCAKE_MUTANTS -DCAKE_VERSION=\"mutant\" -Isrc -Iinclude -w"
libraries="-lsqlite3 -lnghttp2 -luv -lssl -lcrypto -lzstd -lxxhash -lpthread"
export cc flags libraries seeds few from work

sources() {
    find src/base src/hlc src/crdt src/env src/sim src/uv src/view src/rpc src/gossip src/storage src/sqlite src/node \
        src/store \
        -name '*.c' ! -name '*_test.c' ! -path '*/model/*' | sort
}
object() { echo "obj/$(echo "$1" | tr / _).o"; }
compile() { $cc $flags -c "$1" -o "$(object "$1")"; }
export -f compile object

mkdir obj schedules said
sources | xargs -P "$jobs" -I{} bash -c 'compile {}' || exit 2
$cc $flags -c hunt.c -o obj/hunt.o || exit 2
$cc obj/*.o $libraries -o hunt || exit 2
echo "correct code: $(./hunt "$from" 20)"

# The schedules of the layers that have their own.
lower=$(find obj -name 'src_base_*' -o -name 'src_hlc_*' -o -name 'src_crdt_*')
$cc $flags src/crdt/model/*.c $lower -o schedules/crdt || exit 2
for test in membership properties; do
    $cc $flags "src/gossip/${test}_test.c" $(find obj -name 'src_base_*' -o -name 'src_gossip_*') -lxxhash -lcmocka \
        -o "schedules/$test" || exit 2
done

# Each of the substitutions of a change must apply.
change() { # FILE CHANGE
    perl -0 -e 'my ($file, $change) = @ARGV;
        open my $in, "<", $file or die; $_ = <$in>; close $in;
        for my $part (split /;\s*(?=s\/)/, $change) { eval($part) or die "does not apply: $part" }
        open my $out, ">", $file or die; print $out $_;' "$1" "$2"
}

# The simulator with one file changed.
build() { # NAME FILE CHANGE
    local tree="$work/tree-$1"
    mkdir "$tree" && cp -r src include "$tree" && cp "$2" "$tree/$2" || return 1
    (cd "$tree" && change "$2" "$3" && $cc $flags -c "$2" -o mutant.o) 2>/dev/null &&
        $cc $(find obj -name '*.o' ! -path "$(object "$2")") "$tree/mutant.o" $libraries -o "hunt-$1"
    local status=$?
    rm -rf "$tree"
    return $status
}

# By the layer's own schedules, when the simulator did not see it.
by_schedules() { # NAME LAYER
    local line test
    if [ "$2" = crdt ]; then
        line=$(./schedules/crdt "$1" 5000 2>/dev/null | grep ' seeds fail')
        case $line in *": 0 of"*"passes or none") return 1 ;; *": 0 of"*) echo "its directed schedule" ;;
        *) echo "${line#*: }" | sed 's/ seeds fail.*/ schedules of the set/' ;; esac
        return 0
    fi
    test=$(sed -n "s/^cake_gossip_mutant($1 \([a-z]*\) \([a-z_]*\))/\1 \2/p" src/gossip/tests.cmake)
    [ -n "$test" ] && ! CAKE_GOSSIP_MUTANT=$1 CAKE_GOSSIP_TEST=${test#* } "./schedules/${test% *}" >/dev/null 2>&1 &&
        echo "membership test ${test#* }"
}

# By every interleaving of a small case.
by_explorer() { # NAME
    CAKE_CRDT_MUTANT=$1 timeout 600 ./hunt explore 20000 2>/dev/null |
        sed -n 's/^caught after \([0-9]*\) states.*/, \1 states of the explorer/p'
}

hunt() { # NAME FILE CHANGE TEXT
    local said by=
    case $2 in
    crdt) said=$(CAKE_CRDT_MUTANT=$1 timeout 6000 ./hunt "$from" "$few" 2>/dev/null) ;;
    gossip) said=$(CAKE_GOSSIP_MUTANT=$1 timeout 6000 ./hunt "$from" "$few" 2>/dev/null) ;;
    *)
        if ! build "$1" "$2" "$3"; then
            echo "| $1 | $4 | – | does not apply any more |" >"said/$1"
            return
        fi
        said=$(timeout 6000 "./hunt-$1" "$from" "$seeds" 2>/dev/null)
        rm -f "hunt-$1"
        ;;
    esac
    local count
    case $said in
    caught*)
        count=$(echo "$said" | sed 's/^caught after \([0-9]*\) seeds.*/\1/')
        by=$(echo "$said" | sed -n 's/.*seed [0-9]*, \([a-z]*\), at.*/\1/p')
        echo "| $1 | $4 | $count | ${by:-the program ${said##*: it }} |" >"said/$1"
        ;;
    *)
        case $2 in crdt | gossip) by=$(by_schedules "$1" "$2") ;; esac
        [ "$2" = crdt ] && by=$by$(by_explorer "$1")
        echo "| $1 | $4 | ${by:+> $few} | ${by:-NOT CAUGHT in $seeds seeds} |" >"said/$1"
        ;;
    esac
    sed 's/^| \([^|]*\) | .* | \([^|]*\) | \([^|]*\) |$/\1: \2 \3/' "said/$1" >&2
}
export -f hunt change build by_schedules by_explorer

names=()
while IFS='@' read -r name file change text; do
    name=$(echo $name) file=$(echo $file) text=$(echo "$text" | sed 's/^ *//')
    case $name in '' | \#*) continue ;; esac
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    names+=("$name")
    printf '%s\0%s\0%s\0%s\0' "$name" "$file" "$change" "$text"
done <"$here/list" >jobs
xargs -0 -n 4 -P "$jobs" bash -c 'hunt "$@"' hunt <jobs

echo
echo "| mutant | what is broken | seeds | seen by |"
echo "| --- | --- | --- | --- |"
for name in "${names[@]}"; do
    cat "said/$name"
done
missed=$(cat said/* | grep -c 'NOT CAUGHT\|does not apply')
echo
echo "${#names[@]} mutants, $missed missed"
[ "$missed" -eq 0 ]
