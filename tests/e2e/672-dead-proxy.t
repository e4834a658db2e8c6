#!/bin/sh
# A proxy that takes connections for a server that is gone: with keys its handshakes fail, which is no reason to do without the others.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
moe-serve keygen "$work/server" >/dev/null && moe-serve keygen "$work/client" >/dev/null
ok $? "keys"
serve_start "$model" --bind tcp://127.0.0.1:0 --server-key "$work/server" --authorized-keys "$work/client.pub"
ok $? "a server that holds all experts"

# Port 1 is nobody's.  The relay ends when its standard input does.
mkfifo "$work/control"
perl "$top/tests/chaos/relay.pl" 127.0.0.1 0 127.0.0.1 1 <"$work/control" >"$work/port" &
relay=$!
pids="$pids $relay"
exec 3>"$work/control"
tries=0
while [ ! -s "$work/port" ] && [ $tries -lt 300 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
proxy="tcp://127.0.0.1:$(cat "$work/port") $(sed 's/^[^ ]* //' "$hosts")"

{ cat "$hosts"; echo "$proxy"; } >"$work/both"
runs 0 "one of two servers is such a proxy: the other does the work" \
	timeout 100 moe-route --hosts "$work/both" --client-key "$work/client" -p "And it came to pass" -n 8 "$model"
cp "$work/out" "$work/with"
moe-route -p "And it came to pass" -n 8 "$model" >"$work/here" 2>/dev/null
same "and the text is the same" "$work/here" "$work/with"
echo "$proxy" >"$work/alone"
refuses "when it is the only one, a line says so" "moe-route: .*handshake failed" \
	timeout 100 moe-route -q --hosts "$work/alone" --client-key "$work/client" --timeout 60 -p "And" -n 2 "$model"
exec 3>&-
serve_stop
ok $? "the server ends well"
finish
