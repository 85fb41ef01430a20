#!/bin/sh
# Clients of others call a service: curl, h2load. $1: where the programs are.
set -eu
bin=$1
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$dir"' EXIT

if [ ! -x "$bin/example-echo_server" ]; then
    echo "skipped: the examples are not built"
    exit 0
fi
: >"$dir/out"
"$bin/example-echo_server" 127.0.0.1:0 >"$dir/out" &
server=$!
address=
for _ in $(seq 600); do
    address=$(sed -n 's/^listening on //p' "$dir/out")
    [ -n "$address" ] && break
    sleep 0.1
done
[ -n "$address" ] || { echo "the echo server does not start"; exit 1; }

expect() { # WHAT EXPECTED GOT
    [ "$2" = "$3" ] || { echo "$1: expected '$2', got '$3'"; exit 1; }
}

if command -v curl >/dev/null && curl --version | grep -q HTTP2; then
    url=http://$address/echo/echo
    expect "curl, small" hello "$(curl -sS --http2-prior-knowledge --data-binary hello "$url")"
    head -c 3000000 /dev/urandom >"$dir/large"
    curl -sS --http2-prior-knowledge --data-binary @"$dir/large" "$url" >"$dir/back"
    cmp "$dir/large" "$dir/back"
    # a body whose length is not told before
    cat "$dir/large" | curl -sS --http2-prior-knowledge -X POST -T - "$url" >"$dir/back"
    cmp "$dir/large" "$dir/back"
    expect "curl, no such method" 404 \
        "$(curl -sS -o /dev/null -w '%{http_code}' --http2-prior-knowledge --data-binary x "http://$address/echo/none")"
    expect "the client of ours" hello "$("$bin/example-echo_client" "$address" hello)"
    echo "curl: as expected"
else
    echo "curl: skipped, not installed or without HTTP/2"
fi

if command -v h2load >/dev/null; then
    printf '%64s' x >"$dir/body"
    h2load -n 2000 -c 4 -m 32 -d "$dir/body" "http://$address/echo/echo" >"$dir/h2load"
    grep -q '2000 succeeded, 0 failed, 0 errored' "$dir/h2load" || { cat "$dir/h2load"; exit 1; }
    echo "h2load: as expected"
else
    echo "h2load: skipped, not installed"
fi
