#!/bin/sh
# --overlap: steps in two halves give the bytes of whole steps, with any servers and batches; a lost server takes only
# what needed it.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

model=$top/models/kjv-mixtral
words="in the beginning God created the heaven and the earth and the earth was without form and void"
for i in 1 2 3 4 5 6 7; do
	echo "{\"id\":$i,\"prompt\":\"$(echo "$words" | cut -d' ' -f1-$((i * 2)))\",\"max_tokens\":$((i + 2)),\"logprobs\":true}"
done >"$work/requests"
moe-route "$model" <"$work/requests" >"$work/here"
ok $? "in one process"

for servers in 1 2; do
	moe-shard -q --devices $servers "$model" "$work/shards$servers" >/dev/null
	serve_start "$work/shards$servers"
	for batch in 1 3 7; do
		moe-route -v --batch $batch --chunk $((batch * 9)) --hosts "$hosts" --overlap on "$work/shards$servers" \
			<"$work/requests" >"$work/on" 2>"$work/err"
		same "$servers servers, $batch at once: on" "$work/here" "$work/on"
		has "steps went in halves" "\([1-9][0-9]* in halves\)" "$work/err"
	done
	moe-route -v --hosts "$hosts" --overlap off "$work/shards$servers" <"$work/requests" >"$work/off" 2>"$work/err"
	same "$servers servers: off" "$work/here" "$work/off"
	has "no step went in halves" "\(0 in halves\)" "$work/err"
	moe-route --hosts "$hosts" "$work/shards$servers" <"$work/requests" >"$work/auto"
	same "$servers servers: auto" "$work/here" "$work/auto"
	[ $servers -lt 2 ] && serve_stop
done

i=0
while [ $i -lt 24 ]; do
	echo "{\"id\":$i,\"prompt\":\"And it came to pass\",\"max_tokens\":900,\"ignore_eos\":true}"
	i=$((i + 1))
done >"$work/many"
rank1=$(sed -n 's/.*"rank":1,.*"pid":\([0-9]*\).*/\1/p' "$work/serve.out")
timeout 60 moe-route --hosts "$hosts" --timeout 3 --batch 8 --overlap on "$work/shards2" <"$work/many" >"$work/lost" 2>"$work/err" &
route=$!
sleep 1
kill -STOP "$rank1"
wait $route
[ $? -eq 1 ]
ok $? "a server hangs: status 1"
[ "$(wc -l <"$work/lost")" -eq 24 ] && grep -q 'rank 1' "$work/lost"
ok $? "every request has its line, and the lost ones name the server"
kill -CONT "$rank1"
serve_stop

runs 2 "--overlap on without servers" moe-route --overlap on -p "And" "$model"
has "says what it needs" "needs servers" "$work/err"
runs 2 "another word" moe-bench --overlap sometimes -m "$model"
finish
