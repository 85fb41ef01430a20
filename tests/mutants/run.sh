#!/bin/bash
# run.sh [-n SEEDS] [-f FROM] [NAME...]: breaks the code in each of the ways of `list`, in a copy, and says how many seeds of the
# simulator it takes to notice. Ends with 1 when a mutant lives through all its seeds (300 by default) or no longer applies.
set -u
seeds=300 from=1
while getopts n:f: option; do
    case $option in
    n) seeds=$OPTARG ;;
    f) from=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$root/src" "$root/include" "$work"
cp "$here/hunt.c" "$work"
cd "$work" || exit 2

cc=${CC:-cc}
flags="-std=c11 -O1 -g -D_GNU_SOURCE -DCAKE_MUTANTS -DCAKE_VERSION=\"mutant\" -Isrc -Iinclude -w"
libraries="-lnghttp2 -luv -lssl -lcrypto -lzstd -lxxhash -lpthread"

sources() {
    find src/base src/hlc src/crdt src/env src/sim src/uv src/view src/rpc src/gossip src/storage src/node src/store \
        -name '*.c' ! -name '*_test.c' ! -path '*/model/*' | sort
}
object() { echo "obj/$(echo "$1" | tr / _).o"; }
compile() { $cc $flags -c "$1" -o "$(object "$1")"; }

mkdir obj
export -f compile object
export cc flags
sources | xargs -P "$(nproc)" -I{} bash -c 'compile {}' || exit 2
$cc $flags -c hunt.c -o obj/hunt.o || exit 2
$cc obj/*.o $libraries -o hunt || exit 2

failed=0 count=0 caught=0
echo "correct code: $(./hunt "$from" 20)"

hunt() { # NAME TEXT
    count=$((count + 1))
    local said
    said=$(timeout 3000 ./hunt "$from" "$seeds" 2>/dev/null)
    [ $? -eq 1 ] && caught=$((caught + 1)) || failed=1
    echo "$1: ${said:-hangs} ($2)"
}

while IFS='@' read -r name file change text; do
    name=$(echo $name) file=$(echo $file) text=$(echo "$text" | sed 's/^ *//')
    case $name in '' | \#*) continue ;; esac
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    case $file in
    crdt) CAKE_CRDT_MUTANT=$name hunt "$name" "$text" ;;
    gossip) CAKE_GOSSIP_MUTANT=$name hunt "$name" "$text" ;;
    *)
        cp "$root/$file" "$file"
        perl -0pi -e "$change" "$file"
        if cmp -s "$root/$file" "$file" || ! compile "$file" || ! $cc obj/*.o $libraries -o hunt; then
            echo "$name: does not apply any more"
            failed=1
        else
            hunt "$name" "$text"
        fi
        cp "$root/$file" "$file"
        compile "$file"
        ;;
    esac
    case $file in crdt | gossip) ;; *) $cc obj/*.o $libraries -o hunt ;; esac
done <"$here/list"
echo "$caught of $count caught"
exit $failed
