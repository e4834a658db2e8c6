#!/bin/sh
# Batches through shared memory: the same answers as over ZeroMQ and as in process; servers that die or hang are noticed.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
moe-shard -q --devices 2 "$model" "$work/shards" >/dev/null
ok $? "a shard set for two devices"

i=0
while [ $i -lt 12 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass $i\",\"max_tokens\":$((4 + i)),\"ignore_eos\":true,\"logprobs\":true}"
	i=$((i + 1))
done >"$work/requests"

# by NAME OPTION...: the answers, and what -v says.
by() {
	by_name=$1
	shift
	timeout 120 moe-route -v --batch 4 "$@" "$work/shards" <"$work/requests" >"$work/$by_name" 2>"$work/$by_name.err"
}

by here
serve_start "$work/shards" -v
by shm --hosts "$hosts" --transport shm
ok $? "--transport shm"
same "shared memory: the same answers as in this process" "$work/here" "$work/shm"
[ "$(grep -c 'rank [01] ipc://.*, shared memory (' "$work/shm.err")" -eq 2 ]
ok $? "-v says that both servers share memory"
by sleepy --hosts "$hosts" --transport shm --busy-poll 0
same "--busy-poll 0: the same answers" "$work/here" "$work/sleepy"
by zmq --hosts "$hosts" --transport zmq
same "ZeroMQ: the same answers" "$work/here" "$work/zmq"
has "--transport zmq: nothing through shared memory" "through shared memory: 0 messages, 0 bytes out, 0 in" "$work/zmq.err"
sed -n 's/.*: \([0-9]* batches\) in \([0-9]* messages\) to servers, \([0-9]* bytes out\).*/\2, \3/p' "$work/shm.err" >"$work/all"
sed -n 's/.*through shared memory: \(.*\), [0-9]* in$/\1/p' "$work/shm.err" >"$work/shared"
same "--transport shm: all messages through shared memory" "$work/all" "$work/shared"
by bf16 --hosts "$hosts" --wire bf16 --transport shm
by bf16zmq --hosts "$hosts" --wire bf16 --transport zmq
same "--wire bf16: the same answers by either way" "$work/bf16" "$work/bf16zmq"
serve_stop
has "the servers say so too" "shared memory: offered" "$work/serve.err"
[ -z "$(find "$work/run" -type s)" ]
ok $? "no socket is left"

serve_start "$work/shards" --no-shm -v
by without --hosts "$hosts"
same "--no-shm: the same answers" "$work/here" "$work/without"
has "and -v says why" "rank 0 ipc://.*, ZeroMQ \(offers no shared memory\)" "$work/without.err"
refuses "--transport shm refuses such servers" "rank [01] at ipc://.*: offers no shared memory" moe-route --hosts "$hosts" --transport shm -p And -n 2 "$work/shards"
serve_stop

serve_start "$work/shards" --bind tcp://127.0.0.1:0 --insecure
by tcp --hosts "$hosts"
same "tcp: the same answers" "$work/here" "$work/tcp"
has "and -v says why" "rank 1 tcp://.*, ZeroMQ \(offers no shared memory: it is reached over tcp\)" "$work/tcp.err"
serve_stop
runs 2 "--transport of another name is wrong usage" moe-route --transport rdma -p And "$work/shards"
runs 2 "--transport shm without servers too" moe-route --transport shm -p And "$work/shards"

# As 520-lost.t, and with nothing but shared memory.
i=0
while [ $i -lt 32 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass\",\"max_tokens\":900,\"ignore_eos\":true}"
	i=$((i + 1))
done >"$work/many"
lost() {
	serve_start "$work/shards"
	rank1=$(sed -n 's/.*"rank":1,.*"pid":\([0-9]*\).*/\1/p' "$work/serve.out")
	timeout 60 moe-route --hosts "$hosts" --transport shm --timeout 3 --batch 8 "$work/shards" <"$work/many" >"$work/lost" 2>"$work/lost.err" &
	route=$!
	sleep 1
	kill -"$1" "$rank1"
	wait $route
	[ $? -eq 1 ]
	ok $? "$1 of a server: moe-route ends with status 1"
	[ "$(wc -l <"$work/lost")" -eq 32 ]
	ok $? "$1: every request has its line"
	[ "$(grep -c '"error"' "$work/lost")" -gt 0 ] && grep -q 'rank 1' "$work/lost"
	ok $? "$1: the lost ones have an error that names the server"
	[ "$1" = STOP ] && kill -CONT "$rank1" 2>/dev/null
	serve_stop
}
lost KILL
lost STOP

# A client that is killed takes nothing along: the servers go on for the next.
serve_start "$work/shards"
moe-route --hosts "$hosts" --transport shm "$work/shards" <"$work/many" >/dev/null 2>&1 &
route=$!
sleep 1
kill -KILL $route
wait $route 2>/dev/null
by again --hosts "$hosts" --transport shm
same "after a client was killed, the next gets its answers" "$work/here" "$work/again"
pid=$(sed -n 's/.*"rank":1,.*"pid":\([0-9]*\).*/\1/p' "$work/serve.out")
tries=0
while grep -q memfd:moe-serve "/proc/$pid/maps" && [ $tries -lt 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
[ $tries -lt 100 ]
ok $? "and the memory of both is given back"
serve_stop
for o in "--busy-poll 0" --presum --mixed-numerics; do
	runs 2 "$o without servers" moe-route $o -p And -n 1 synth:tiny-mixtral
	has "says what it needs" "needs servers" "$work/err"
done
finish
