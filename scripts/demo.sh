#!/bin/sh
# The demonstration: shard the model in this repository for two devices, serve each from a process of its own,
# and generate text.
cd "$(dirname "$0")/.." || exit 1
PATH=$PWD/bin:$PATH
model=models/kjv-mixtral
prompt=${PROMPT:-In the beginning}
work=$(mktemp -d "${TMPDIR:-/tmp}/moe-demo.XXXXXX") || exit 1
server=
trap '[ -z "$server" ] || { kill $server; wait $server; } 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say() { printf '\n$ %s\n' "$*"; }

say moe-shard --devices 2 $model shards
moe-shard --devices 2 $model "$work/shards" || exit 1

say "moe-serve --ready-file hosts shards &"
moe-serve --ready-file "$work/hosts" "$work/shards" >"$work/ready" &
server=$!
while [ ! -e "$work/hosts" ]; do
	kill -0 $server 2>/dev/null || exit 1
	sleep 0.1
done
cat "$work/ready"

say "moe-route --hosts hosts -p \"$prompt\" -n 80 shards"
printf '%s' "$prompt"
moe-route --hosts "$work/hosts" -p "$prompt" -n 80 "$work/shards"
