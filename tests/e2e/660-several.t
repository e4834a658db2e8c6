#!/bin/sh
# Several moe-route on the same servers, and servers behind a network with latency: the answers are those of one alone.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
moe-shard -q --devices 2 "$model" "$work/shards" >/dev/null
ok $? "a shard set for two devices"
i=0
while [ $i -lt 12 ]; do
	echo "{\"id\":$i,\"prompt\":\"And the number $i of the people\",\"max_tokens\":$((5 + i)),\"logprobs\":true}"
	i=$((i + 1))
done >"$work/requests"
moe-route --ctx 64 --batch 4 "$work/shards" <"$work/requests" >"$work/alone"
ok $? "answers without servers"

# several WORDS HOSTS OPTION...: three at once
several() {
	words=$1 list=$2
	shift 2
	for r in 1 2 3; do
		timeout 120 moe-route --ctx 64 --batch $((r + 1)) --hosts "$list" "$@" "$work/shards" <"$work/requests" >"$work/out.$r" 2>"$work/err.$r" &
		eval "route$r=$!"
	done
	for r in 1 2 3; do
		eval "wait \$route$r"
		ok $? "$words: route $r of three ends well"
		same "$words: route $r has the same answers" "$work/alone" "$work/out.$r"
	done
}
serve_start "$work/shards"
several "shared memory" "$hosts"
several "halves" "$hosts" --overlap on
serve_stop

serve_start "$work/shards" --bind tcp://127.0.0.1:0 --insecure
several "tcp" "$hosts"
doors=$(sed 's,^tcp://,0=,' "$hosts" | awk '{print $1}' | tr '\n' ' ')
# shellcheck disable=SC2086 # each is a word
"${MOE_TESTS:-$top/build/release/tests}/tools/delay" -r 50000000 1000 $doors >"$work/ports" &
pids="$pids $!"
tries=0
while ! grep -q ready "$work/ports" && [ $tries -lt 300 ]; do
	sleep 0.1
	tries=$((tries + 1))
done
for port in $(sed 's/^ready//' "$work/ports"); do echo "tcp://127.0.0.1:$port"; done >"$work/far"
[ "$(wc -l <"$work/far")" -eq 2 ]
ok $? "a network with a latency"
several "a millisecond each way" "$work/far"
serve_stop
finish
